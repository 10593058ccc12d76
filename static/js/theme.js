// Runs before the first paint: theme and sidebar as last chosen, so that nothing flashes.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage is refused in some private modes: the default applies
    }
  };
  const apply = () => {
    const choice = stored("gw-theme") || "auto";
    root.dataset.themeChosen = choice;
    const theme = choice === "auto" ? (dark.matches ? "dark" : "light") : choice;
    if (root.dataset.bsTheme !== theme) {
      root.dataset.bsTheme = theme;
      document.dispatchEvent(new CustomEvent("gw:theme"));
    }
  };
  apply();
  if (stored("gw-sidebar") === "rail") root.dataset.sidebar = "rail";
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  document.addEventListener("gw:theme-choose", (event) => {
    try {
      localStorage.setItem("gw-theme", event.detail);
    } catch {
      root.dataset.bsTheme = event.detail;
      return;
    }
    apply();
  });
})();
