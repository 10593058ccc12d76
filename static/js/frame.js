// The frame: drawer, sidebar rail, theme choice, toasts, relative times, htmx focus and announcements.
(() => {
  "use strict";
  const root = document.documentElement;

  const announce = (text) => {
    const live = document.getElementById("gw-live");
    if (!live) return;
    live.textContent = "";
    requestAnimationFrame(() => (live.textContent = text));
  };

  const toast = (content) => {
    const place = document.getElementById("gw-toasts");
    if (!place) return;
    let box = content;
    if (typeof content === "string") {
      box = document.createElement("div");
      box.className = "gw-toast";
      box.textContent = content;
    }
    box.hidden = false;
    place.append(box);
    setTimeout(() => box.remove(), 6000);
  };

  window.gw = { announce, toast };

  // Drawer on narrow screens, rail on wide ones.
  let opener = null;
  const drawer = (open) => {
    root.classList.toggle("gw-drawer-open", open);
    document.querySelector("[data-drawer-open]")?.setAttribute("aria-expanded", String(open));
    if (open) {
      opener = document.activeElement;
      document.querySelector(".gw-drawer-close")?.focus();
    } else {
      opener?.focus();
      opener = null;
    }
  };

  const rail = () => {
    const on = root.dataset.sidebar !== "rail";
    if (on) root.dataset.sidebar = "rail";
    else delete root.dataset.sidebar;
    showRail();
    try {
      localStorage.setItem("gw-sidebar", on ? "rail" : "full");
    } catch {
      return; // not remembered where storage is refused
    }
  };
  const showRail = () => {
    const on = root.dataset.sidebar === "rail";
    const button = document.querySelector("[data-sidebar-toggle]");
    button?.setAttribute("aria-pressed", String(on));
    button?.setAttribute("aria-label", on ? "Expand sidebar" : "Collapse sidebar");
    if (button) button.title = on ? "Expand sidebar" : "Collapse sidebar";
  };

  const showTheme = () => {
    for (const button of document.querySelectorAll("button[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === root.dataset.themeChosen));
    }
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (target.closest("[data-drawer-open]")) drawer(true);
    else if (target.closest("[data-drawer-close]")) drawer(false);
    else if (target.closest("[data-sidebar-toggle]")) rail();
    const theme = target.closest("[data-theme-choice]");
    if (theme) {
      document.dispatchEvent(new CustomEvent("gw:theme-choose", { detail: theme.dataset.themeChoice }));
      showTheme();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (!root.classList.contains("gw-drawer-open")) return;
    if (event.key === "Escape") drawer(false);
    if (event.key !== "Tab") return;
    const stops = [...document.querySelectorAll("#gw-sidebar a, #gw-sidebar button")].filter(
      (stop) => stop.offsetParent !== null,
    );
    const edge = event.shiftKey ? stops[0] : stops.at(-1);
    if (document.activeElement === edge) {
      event.preventDefault();
      (event.shiftKey ? stops.at(-1) : stops[0]).focus();
    }
  });

  // "4 min ago" stays true while the page is open.
  const ago = (then) => {
    const seconds = (Date.now() - then) / 1000;
    const size = Math.abs(seconds);
    if (size < 10) return "just now";
    for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
      if (size >= length) {
        const amount = `${Math.floor(size / length)} ${unit}`;
        return seconds > 0 ? `${amount} ago` : `in ${amount}`;
      }
    }
    return "just now";
  };
  const tick = () => {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const then = Date.parse(time.dateTime);
      if (Math.abs(Date.now() - then) > 45 * 86400e3) continue; // written as a date by the server
      const text = ago(then);
      if (time.textContent !== text) time.textContent = text;
    }
  };
  setInterval(tick, 10000);

  const showToasts = () => {
    for (const box of document.querySelectorAll("[data-toast][hidden]")) toast(box);
  };

  // Fragments: what changed is said, and focus stays where it was or goes to the first error.
  let focused = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const active = document.activeElement;
    focused = active && event.detail.target?.contains(active) ? active.id || active.getAttribute("name") : null;
    if ([400, 403, 409, 422].includes(event.detail.xhr.status)) {
      event.detail.shouldSwap = true; // forms come back with their messages
      event.detail.isError = false;
    }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const element = event.detail.elt;
    showToasts();
    tick();
    const first = element.querySelector?.("[data-focus-first]");
    if (first) first.focus();
    else if (focused) {
      const again = document.getElementById(focused) || document.querySelector(`[name="${CSS.escape(focused)}"]`);
      if (again && again !== document.activeElement) again.focus({ preventScroll: true });
    }
    focused = null;
    const words = element.dataset?.announce || element.querySelector?.("[data-announce]")?.dataset.announce;
    if (words) announce(words);
  });
  const failed = (text) => {
    announce(text);
    toast(text);
  };
  document.addEventListener("htmx:sendError", () => failed("The server cannot be reached. Nothing was changed."));
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.requestConfig?.verb !== "get") {
      failed(`The server answered ${event.detail.xhr.status}. Reload the page and try again.`);
    }
  });

  showRail();
  showTheme();
  showToasts();
  tick();
  document.querySelector("[data-focus-first]")?.focus();
})();
