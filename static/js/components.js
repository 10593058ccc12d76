// Components: copy buttons, dialogs, confirm by typing, code tabs, clickable rows.
(() => {
  "use strict";

  const copy = async (button) => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // No clipboard outside a secure context: a selected field does it.
      const field = document.createElement("textarea");
      field.value = text;
      (button.closest("dialog") || document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    const use = button.querySelector("use");
    const before = use?.getAttribute("href");
    use?.setAttribute("href", before.replace(/#.*/, "#check"));
    gw.announce("Copied");
    setTimeout(() => use?.setAttribute("href", before), 1600);
  };

  const openDialog = (dialog) => {
    dialog.showModal();
    const field = dialog.querySelector("[data-confirm-input], [autofocus], input:not([type=hidden])");
    (field || dialog.querySelector("[data-close]"))?.focus();
  };

  // A link to #id opens that dialog; a form that came back with errors opens its own.
  const asked = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  const shown = asked?.matches("dialog") ? asked : document.querySelector("dialog .gw-error:not([hidden])")?.closest("dialog");
  if (shown) openDialog(shown);

  const showTab = (tab) => {
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
    for (const other of tabs) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !on;
    }
    tab.focus();
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const copying = target.closest("[data-copy]");
    if (copying) return void copy(copying);
    const opening = target.closest("[data-dialog]");
    if (opening) return openDialog(document.getElementById(opening.dataset.dialog));
    if (target.closest("[data-close]")) return void target.closest("dialog")?.close();
    if (target instanceof HTMLDialogElement && !target.classList.contains("gw-palette")) {
      const box = target.getBoundingClientRect();
      const outside =
        event.clientX < box.left || event.clientX > box.right || event.clientY < box.top || event.clientY > box.bottom;
      if (outside && event.detail > 0) target.close();
      return;
    }
    const tab = target.closest("[data-tabs] [role=tab]");
    if (tab) return showTab(tab);
    followRow(event, target);
  });

  // The whole row leads where its first link leads; selecting text and inner controls are left alone.
  const followRow = (event, target) => {
    const row = target.closest("tr[data-href]");
    if (!row || target.closest("a, button, input, select, label, summary, dialog")) return;
    if (String(getSelection())) return;
    if (event.ctrlKey || event.metaKey) open(row.dataset.href, "_blank", "noopener");
    else location.assign(row.dataset.href);
  };

  document.addEventListener("keydown", (event) => {
    const tab = event.target instanceof Element ? event.target.closest("[data-tabs] [role=tab]") : null;
    if (!tab || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
    const step = event.key === "ArrowRight" ? 1 : -1;
    showTab(tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]);
  });

  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-type-to-confirm]");
    if (!form) return;
    const typed = form.querySelector("[data-confirm-input]").value.trim();
    form.querySelector("[type=submit]").disabled = typed !== form.dataset.typeToConfirm;
  });

  // A dialog that was answered by htmx is done.
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful) event.detail.elt.closest?.("dialog.gw-dialog")?.close();
  });

  // Select all and bulk actions of a table: [data-select-all] and [data-bulk] inside one form.
  document.addEventListener("change", (event) => {
    const form = event.target.closest?.("form[data-selectable]");
    if (!form) return;
    const boxes = [...form.querySelectorAll("tbody input[type=checkbox]")];
    const all = form.querySelector("[data-select-all]");
    if (event.target === all) for (const box of boxes) box.checked = all.checked;
    const chosen = boxes.filter((box) => box.checked).length;
    if (all) {
      all.checked = chosen === boxes.length && chosen > 0;
      all.indeterminate = chosen > 0 && chosen < boxes.length;
    }
    const bulk = form.querySelector("[data-bulk]");
    if (bulk) bulk.hidden = chosen === 0;
    const count = form.querySelector("[data-bulk-count]");
    if (count) count.textContent = `${chosen} selected`;
  });
})();
