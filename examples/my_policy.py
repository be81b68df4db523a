"""A policy of your own: `gentax evaluate my_policy:explore -d babyai --admissible`, in the folder of this file."""


def explore(messages: list[dict[str, str]]) -> str:
    """Take the admissible action that was tried least in this episode."""
    admissible = messages[-1]["content"].rpartition("Possible: ")[2].split(" | ")[:40]  # no more are listed
    tried = [message["content"] for message in messages if message["role"] == "assistant"]
    action = min(admissible, key=lambda action: sum(f">{action}<" in reply for reply in tried))
    return f"<action>{action}</action>"
