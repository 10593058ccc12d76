// Command palette: Ctrl-K or ⌘K or "/", type, arrows, Enter.
(() => {
  "use strict";
  const palette = document.getElementById("gw-palette");
  if (!palette) return;
  const input = palette.querySelector("input");
  const list = palette.querySelector("ul");
  const none = palette.querySelector(".gw-palette-none");
  const options = [...list.children];
  let current = null;

  const score = (option, words) => {
    const text = option.dataset.words.toLowerCase();
    let total = 0;
    for (const word of words) {
      const at = text.indexOf(word);
      if (at < 0) return -1;
      total += at === 0 ? 3 : text[at - 1] === " " ? 2 : 1;
    }
    return total;
  };
  const select = (option) => {
    current?.removeAttribute("aria-selected");
    current = option;
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  };
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const ranked = options
      .map((option, index) => [words.length ? score(option, words) : 0, index, option])
      .sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    for (const [points, , option] of ranked) {
      option.hidden = points < 0;
      list.append(option);
    }
    const shown = ranked.filter(([points]) => points >= 0);
    none.hidden = shown.length > 0;
    select(shown[0]?.[2] || null);
  };
  const show = () => {
    if (palette.open) return;
    input.value = "";
    filter();
    palette.showModal();
    input.focus();
  };
  const run = (option) => {
    if (!option) return;
    palette.close();
    if (option.dataset.href) location.assign(option.dataset.href);
    if (option.dataset.environment) {
      document.querySelector(`button[name=environment][value="${CSS.escape(option.dataset.environment)}"]`)?.click();
    }
  };
  const move = (step) => {
    const shown = [...list.children].filter((option) => !option.hidden);
    if (shown.length) select(shown[(shown.indexOf(current) + step + shown.length) % shown.length]);
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (palette.open) palette.close();
      else show();
    } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      show();
    }
  });
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("[data-palette-open]")) show();
    else if (target === palette) palette.close();
  });
  input.addEventListener("input", filter);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowUp") move(-1);
    else if (event.key === "Enter") {
      if (current?.dataset.themeChoice) current.click();
      else run(current);
    } else return;
    event.preventDefault();
  });
  list.addEventListener("click", (event) => run(event.target.closest("[role=option]")));
  list.addEventListener("mousemove", (event) => {
    const option = event.target.closest("[role=option]");
    if (option && option !== current) select(option);
  });
})();
