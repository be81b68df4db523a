(() => {
  const box = document.querySelector(".filter"), count = box.querySelector("output");
  const menus = [...box.querySelectorAll("select")], all = [...document.querySelectorAll("#episodes details")];
  const show = () => {
    for (const one of all) one.hidden = menus.some((menu) => menu.value && one.dataset[menu.name] !== menu.value);
    count.textContent = `${all.filter((one) => !one.hidden).length} of ${all.length}`;
  };
  for (const menu of menus) menu.addEventListener("change", show);
  box.hidden = false;
  show();
})();
