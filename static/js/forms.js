// Forms: a field is checked when it is left, a secret is replaced on purpose, filters apply themselves.
(() => {
  "use strict";

  const mark = (input) => {
    const field = input.closest("[data-field]");
    const error = field?.querySelector(".gw-error");
    if (!error) return;
    const text = input.validationMessage;
    const id = error.id;
    error.querySelector("[data-error-text]").textContent = text;
    error.hidden = !text;
    field.classList.toggle("gw-field-bad", Boolean(text));
    input.classList.toggle("is-invalid", Boolean(text));
    const described = new Set((input.getAttribute("aria-describedby") || "").split(" ").filter(Boolean));
    if (text) {
      input.setAttribute("aria-invalid", "true");
      described.add(id);
    } else {
      input.removeAttribute("aria-invalid");
      described.delete(id);
    }
    if (described.size) input.setAttribute("aria-describedby", [...described].join(" "));
    else input.removeAttribute("aria-describedby");
  };

  document.addEventListener("focusout", (event) => {
    const input = event.target;
    if (!input.willValidate || !input.closest("[data-field]") || input.type === "radio") return;
    if (input.value !== "" || input.classList.contains("is-invalid")) mark(input);
  });
  document.addEventListener("input", (event) => {
    const input = event.target;
    if (input.willValidate && input.classList.contains("is-invalid")) mark(input);
  });
  document.addEventListener(
    "invalid",
    (event) => {
      const input = event.target;
      if (!input.closest("[data-field]")) return;
      event.preventDefault();
      mark(input);
      if (input.form?.querySelector(":invalid:not(fieldset)") === input) input.focus();
    },
    true,
  );

  const replacing = (field, on) => {
    const set = field.querySelector("[data-secret-set]");
    const place = field.querySelector("[data-secret-input]");
    if (!set) return;
    set.hidden = on;
    place.hidden = !on;
    for (const input of place.querySelectorAll("input, textarea")) {
      input.disabled = !on; // an untouched secret is not sent
      if (!on) input.value = "";
      else input.focus();
    }
  };
  const hideSecrets = (scope) => {
    for (const place of scope.querySelectorAll("[data-secret-input][hidden]")) {
      for (const input of place.querySelectorAll("input, textarea")) input.disabled = true;
    }
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("[data-secret-replace]")) replacing(target.closest("[data-secret]"), true);
    if (target?.closest("[data-secret-keep]")) {
      const field = target.closest("[data-secret]");
      replacing(field, false);
      field.querySelector("[data-secret-replace]").focus();
    }
  });

  // Filters: empty fields are left out of the address.
  let waiting;
  const submit = (form) => {
    clearTimeout(waiting);
    form.requestSubmit();
  };
  document.addEventListener("change", (event) => {
    const form = event.target.closest?.("form[data-autosubmit]");
    if (form && !event.target.matches("input[type=search], input[type=text]")) submit(form);
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-autosubmit]");
    if (!form || !event.target.matches("input[type=search], input[type=text]")) return;
    clearTimeout(waiting);
    if (form.hasAttribute("hx-get")) waiting = setTimeout(() => submit(form), 350);
  });
  // The dates beneath a preset only show what it reaches; once chosen, they speak for themselves.
  const customOf = (form) => form.querySelector('[name="range"][value="custom"]');
  const dropUnsaid = (form, data) => {
    const custom = customOf(form);
    for (const name of custom ? (custom.checked ? ["range"] : ["since", "until"]) : []) data.delete(name);
  };
  const fillDates = () => {
    const shown = document.querySelector("[data-first][data-last]");
    for (const form of shown ? document.querySelectorAll("form[data-autosubmit]") : []) {
      if (customOf(form)?.checked !== false) continue;
      for (const [name, day] of [["since", shown.dataset.first], ["until", shown.dataset.last]]) {
        form.elements[name].type = "date"; // not with a time of day, as an address may have it
        form.elements[name].value = day;
      }
    }
  };
  document.addEventListener("click", (event) => {
    const toggle = event.target.closest?.("[data-filters-toggle]");
    toggle?.setAttribute("aria-expanded", String(toggle.getAttribute("aria-expanded") !== "true"));
  });
  document.addEventListener("formdata", (event) => {
    if (!event.target.matches("form[data-autosubmit]")) return;
    dropUnsaid(event.target, event.formData);
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name, value);
  });
  document.addEventListener("htmx:configRequest", (event) => {
    if (!event.detail.elt.matches?.("form[data-autosubmit]")) return;
    const given = event.detail.formData;
    dropUnsaid(event.detail.elt, given);
    for (const name of new Set([...given.keys()])) {
      const values = given.getAll(name).filter((value) => value !== "");
      given.delete(name);
      for (const value of values) given.append(name, value);
    }
  });

  // After a fragment was swapped the chips and the CSV follow the form; the server drew them first.
  const PAGING = ["cursor", "before", "after", "page"];
  const wordsOf = (form, name) => {
    const controls = [...form.querySelectorAll(`[name="${CSS.escape(name)}"]`)];
    const labels = controls.flatMap((control) => {
      if (control instanceof HTMLSelectElement) return [...control.selectedOptions].map((option) => option.text);
      if (control.type === "radio" || control.type === "checkbox") {
        return control.checked ? [control.closest("label")?.textContent.trim() || control.value] : [];
      }
      return [control.value];
    });
    const plain = form.querySelector(`label[for="${CSS.escape(controls[0]?.id || "")}"]`);
    const legend = controls[0]?.closest("fieldset")?.querySelector("legend");
    return [(legend || plain)?.textContent.trim() || name, labels.join(", ")];
  };
  const chip = (path, query, words, className) => {
    const link = document.createElement("a");
    link.className = className;
    link.href = String(query) ? `${path}?${query}` : path;
    link.append(...words);
    return link;
  };
  const follow = (form) => {
    const place = form.querySelector(".gw-chips");
    const query = new URLSearchParams(location.search);
    const csv = form.querySelector("[data-csv]");
    if (csv) csv.search = String(query);
    const active = [...new Set(query.keys())].filter((name) => {
      const quiet = form.querySelector(`[data-default-for="${CSS.escape(name)}"]`);
      return form.elements[name] && query.get(name) !== (quiet?.dataset.default ?? "");
    });
    const cross = form.querySelector("template[data-chip-cross]").content;
    place.replaceChildren(
      ...active.map((name) => {
        const rest = new URLSearchParams(query);
        for (const gone of [name, ...PAGING]) rest.delete(gone);
        const [label, value] = wordsOf(form, name);
        const strong = document.createElement("strong");
        strong.textContent = value;
        const link = chip(location.pathname, rest, [label, " ", strong, cross.cloneNode(true)], "gw-chip");
        link.setAttribute("aria-label", `Remove filter ${label}: ${value}`);
        return link;
      }),
      ...(active.length > 1 ? [chip(location.pathname, "", ["Clear all"], "gw-chip-clear")] : []),
    );
    place.hidden = active.length === 0;
    const count = form.querySelector("[data-filters-count]");
    if (count) count.textContent = active.length ? ` (${active.length})` : "";
  };
  const followAll = () => document.querySelectorAll("form[data-autosubmit][hx-get]").forEach(follow);
  document.addEventListener("htmx:pushedIntoHistory", followAll);

  // A long form is not lost by a stray click: [data-guard].
  const guarded = new Set();
  document.addEventListener("input", (event) => {
    const form = event.target.closest?.("form[data-guard]");
    if (form) guarded.add(form);
  });
  document.addEventListener("submit", (event) => guarded.delete(event.target));
  addEventListener("beforeunload", (event) => {
    if ([...guarded].some((form) => form.isConnected)) event.preventDefault();
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    hideSecrets(event.detail.elt);
    fillDates();
  });
  hideSecrets(document);
  fillDates();

  // A part of a form that is drawn anew keeps what was typed while its request was under way.
  const typedIn = (root) =>
    new Map(
      [...root.querySelectorAll("input[name]:not([type=radio], [type=checkbox], [type=hidden]), textarea[name]")].map(
        (input) => [input.name, input.value],
      ),
    );
  const underWay = new WeakMap();
  document.addEventListener("htmx:beforeRequest", (event) => {
    const target = event.detail.target;
    const form = target?.closest?.("form[data-guard]");
    if (form) underWay.set(event.detail.xhr, { form, values: typedIn(target) });
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const sent = underWay.get(event.detail.xhr);
    if (!sent) return;
    const now = [...typedIn(event.detail.target)];
    sent.values = new Map(now.filter(([name, value]) => sent.values.get(name) !== value));
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const sent = underWay.get(event.detail.xhr);
    if (!sent) return;
    underWay.delete(event.detail.xhr);
    for (const [name, value] of sent.values) {
      const input = sent.form.elements[name];
      if (!input || input.value === value) continue;
      input.value = value;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
})();
