(() => {
  const section = document.querySelector("#episodes"), list = section.querySelector(".list");
  const form = section.querySelector(".filter"), count = section.querySelector("output"), more = section.querySelector(".more");
  const menus = Object.fromEntries([...form.querySelectorAll("select")].map((menu) => [menu.name, menu]));
  const PAGE = 50;

  // A page opened from a disk may load scripts, not data: each file calls `gentaxEpisodes` with its name and content.
  const files = new Map(), waiting = new Map();
  window.gentaxEpisodes = (name, packed) => waiting.get(name)?.(packed);
  const load = (name) => {
    if (!files.has(name)) files.set(name, new Promise((found, fail) => {
      const script = document.createElement("script");
      waiting.set(name, found);
      script.onerror = () => fail(new Error(`the file episodes/${name}.js is not beside this page, or cannot be read`));
      script.src = `episodes/${name}.js`;
      document.head.append(script);
    }).then((packed) => {
      const bytes = Uint8Array.from(atob(packed), (one) => one.charCodeAt(0));
      return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
    }));
    return files.get(name);
  };

  // What an episode says is only ever put in as text.
  const node = (tag, name, ...children) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children);
    return made;
  };
  const text = (value) => {
    const made = node("pre", "", value);
    made.dir = "auto";
    return made;
  };
  const step = ([observation, reply, action, reward, valid], n) => {
    const marks = node("span", "", ...(valid ? [] : [node("span", "bad", "invalid"), " · "]), `reward ${reward}`);
    const made = node("li", "", node("div", "top", node("span", "", `step ${n + 1}`), marks), node("span", "tag", "observation"), text(observation));
    if (reply.trim() !== action.trim()) made.append(node("div", "reply", node("span", "tag", "reply"), text(reply)));
    made.append(node("div", "does", node("span", "tag", "action"), text(action || "(none could be read)")));
    return made;
  };
  const episode = (title, e) => {
    const facts = node("span", "soft", ` after ${e.steps.length} steps, return ${e.return}, ${e.invalid} invalid`);
    const steps = node("ol", "play", ...e.steps.map(step));
    if (e.final) steps.append(node("li", "", node("div", "top", "in the end"), text(e.final)));
    if (e.error) steps.append(node("li", "", node("div", "top", node("span", "bad", "the environment broke")), text(e.error)));
    return node("div", "", node("h3", "", `${title}: `, node("span", `out ${e.outcome}`, e.outcome), facts), steps);
  };

  const open = async (row) => {
    if (!row.open || row.dataset.loaded) return;
    row.dataset.loaded = "yes";
    const note = node("p", "note", "Loading …");
    row.append(note);
    try {
      const index = await load("index"), set = index.sets.find((one) => one.set === +row.dataset.set), place = +row.dataset.place;
      const get = async (n) => (await load(`${n}-${Math.floor(place / index.chunk)}`))[place % index.chunk];
      const [before, after] = await Promise.all([get(set.base), get(set.set)]);
      const goal = node("p", "goal", node("span", "soft", "Goal: "), before.goal);
      goal.dir = "auto";
      note.replaceWith(goal, node("div", "both", episode("Before", before), episode("After", after)));
    } catch (error) {
      note.textContent = `This episode cannot be shown: ${error.message}.`;
    }
  };
  list.addEventListener("toggle", (event) => open(event.target), true);

  // Rows: first those in the page, then, when somebody asks for all, one for each task of each policy.
  const shown = [...list.children].map((row) => ({ row, ...row.dataset, kinds: row.dataset.kinds.split("|") }));
  const element = (one) => {
    if (one.row) return one.row;
    const summary = node("summary", "", node("strong", "", one.task), node("span", "", `${one.arm}, seed ${one.seed}`), node("span", "", one.change));
    if (one.kinds.length) summary.append(node("span", "soft", one.kinds.join(", ")));
    one.row = node("details", "", summary);
    Object.assign(one.row.dataset, { set: one.set, place: one.place });
    return one.row;
  };
  let all, matching = [], latest = 0;
  const everything = async () => {
    const index = await load("index");
    return index.sets.flatMap((set) => set.tasks.map((task, place) => ({
      task, place, set: set.set, domain: set.domain, arm: set.arm, seed: `${set.seed}`,
      change: index.changes[set.changes[place]], kinds: set.kinds[place].map((kind) => index.kinds[kind]),
    })));
  };
  const extend = () => {
    const first = list.children.length;
    list.append(...matching.slice(first, first + PAGE).map(element));
    more.hidden = list.children.length >= matching.length;
    count.textContent = `${list.children.length} of ${matching.length} shown`;
    return list.children[first];
  };
  const show = async () => {
    const mine = ++latest;
    let rows = shown;
    if (menus.show.value === "all") {
      count.textContent = "Loading …";
      try {
        rows = all ??= await everything();
      } catch (error) {
        count.textContent = `Cannot list all: ${error.message}.`;
        return;
      }
    }
    if (mine !== latest) return;
    const wanted = ["domain", "arm", "seed", "change"].filter((name) => menus[name]?.value);
    matching = rows.filter((one) => wanted.every((name) => one[name] === menus[name].value) && (!menus.kind.value || one.kinds.includes(menus.kind.value)));
    list.replaceChildren();
    extend();
  };
  form.addEventListener("change", show);
  more.addEventListener("click", () => extend()?.querySelector("summary").focus());
  for (const link of document.querySelectorAll("a[data-show]")) link.addEventListener("click", () => {
    for (const [name, menu] of Object.entries(menus)) menu.value = link.dataset[name] ?? "";
    show();
  });
  form.hidden = false;
  show();
})();
