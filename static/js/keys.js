// The key form shows what belongs to a choice: [data-shown-when="field=value"].
(() => {
  "use strict";

  const apply = (form) => {
    const given = new FormData(form);
    for (const part of form.querySelectorAll("[data-shown-when]")) {
      const [name, value] = part.dataset.shownWhen.split("=");
      part.hidden = given.get(name) !== value;
    }
  };

  document.addEventListener("change", (event) => {
    if (event.target.form?.querySelector("[data-shown-when]")) apply(event.target.form);
  });
  const all = () => {
    for (const part of document.querySelectorAll("[data-shown-when]")) apply(part.closest("form"));
  };
  document.addEventListener("htmx:afterSettle", all);
  all();
})();
