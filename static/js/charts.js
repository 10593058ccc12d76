// Charts: Plotly and the figure are loaded when the chart is scrolled into view; see frame/charts.py.
(() => {
  "use strict";
  const source = document.getElementById("gw-charts").dataset.plotly;
  let plotly = null;
  const figures = new Map(); // section -> payload
  const hueOf = new Map(); // entity -> hue, so that it keeps its colour on every chart of the page

  const load = () => {
    plotly ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => {
        plotly = null;
        reject(new Error("The chart library did not load."));
      };
      document.head.append(script);
    });
    return plotly;
  };

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--gw-${name}`).trim();

  const colourOf = (trace) => {
    const hue = trace.meta?.hue;
    if (hue) return token(/^\d+$/.test(String(hue)) ? `data-${hue}` : { other: "data-other" }[hue] || hue);
    if (trace.name === "Other") return token("data-other");
    const name = trace.name || "";
    if (!hueOf.has(name)) hueOf.set(name, (hueOf.size % 8) + 1);
    return token(`data-${hueOf.get(name)}`);
  };

  // Cents for what reaches a cent; calls of a fraction of one keep six places.
  const moneyHover = (trace) => (Math.max(...trace.y) < 0.01 ? ",.6~f" : ",.2f");

  const themed = (trace, isMoney) => {
    const colour = colourOf(trace);
    const copy = structuredClone(trace);
    if (isMoney) copy.yhoverformat ??= moneyHover(trace);
    if (copy.type === "bar") {
      copy.marker = { ...copy.marker, color: copy.marker?.color ?? colour, line: { width: 0, ...copy.marker?.line } };
    } else {
      copy.line = { width: copy.meta?.strong ? 2.5 : 1.5, ...copy.line, color: colour };
      copy.marker = { size: 5, ...copy.marker, color: colour };
      copy.mode ??= "lines";
    }
    return copy;
  };

  const TIME_TICKS = [
    { dtickrange: [null, 86399999], value: "%H:%M\n%-d %b" },
    { dtickrange: [86400000, "M1"], value: "%-d %b\n%Y" },
    { dtickrange: ["M1", null], value: "%b\n%Y" },
  ];

  const timeHover = ([trace]) => (String(trace?.x?.[0]).length > 10 ? "%-d %b %Y, %H:%M" : "%-d %b %Y");

  const axis = (given) => ({
    gridcolor: token("grid"),
    linecolor: token("border"),
    zerolinecolor: token("border-strong"),
    tickfont: { color: token("muted"), size: 11 },
    automargin: true,
    fixedrange: true,
    showspikes: false,
    ...(given?.type === "date" ? { tickformatstops: TIME_TICKS } : {}),
    ...(given?.tickprefix === "$" ? { exponentformat: "none", separatethousands: true } : {}), // $0.0007, never $700µ
    ...given,
    title: { ...(typeof given?.title === "string" ? { text: given.title } : given?.title), font: { color: token("muted"), size: 11 }, standoff: 8 },
  });

  const layoutOf = (payload, height) => {
    const given = structuredClone(payload.figure.layout || {});
    delete given.template;
    delete given.title;
    const axes = Object.fromEntries(
      Object.keys(given).filter((key) => /^[xy]axis\d*$/.test(key)).map((key) => [key, axis(given[key])]),
    );
    const narrow = innerWidth < 640;
    return {
      margin: { l: 48, r: 12, t: 8, b: 32 },
      hovermode: "x unified",
      bargap: 0.24,
      showlegend: payload.figure.data.length > 1,
      ...given,
      height,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "Inter, system-ui, sans-serif", size: 12, color: token("text") },
      legend: { orientation: "h", traceorder: "normal", x: 0, y: narrow ? -0.24 : -0.16, yanchor: "top", font: { color: token("muted"), size: 12 }, itemclick: "toggle", itemdoubleclick: "toggleothers", ...given.legend },
      hoverlabel: { bgcolor: token("raised"), bordercolor: token("border-strong"), font: { color: token("text"), size: 12, family: "Inter, system-ui, sans-serif" }, namelength: -1 },
      xaxis: axis({ showgrid: false, ...(given.xaxis?.type === "date" ? { hoverformat: timeHover(payload.figure.data) } : {}), ...given.xaxis }),
      yaxis: axis({ rangemode: "tozero", ...given.yaxis }),
      ...Object.fromEntries(Object.entries(axes).filter(([key]) => !["xaxis", "yaxis"].includes(key))),
    };
  };

  const part = (section, name) => section.querySelector(`[data-chart-${name}]`);

  const draw = async (section) => {
    const payload = figures.get(section);
    if (!payload || part(section, "plot").hidden) return;
    const library = await load();
    const height = Number(section.dataset.height) || 280;
    const place = part(section, "plot");
    const isMoney = payload.figure.layout?.yaxis?.tickprefix === "$";
    const traces = payload.figure.data.map((trace) => themed(trace, isMoney));
    await library.react(place, traces, layoutOf(payload, height), {
      displayModeBar: false,
    });
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${part(section, "title").textContent}. The same numbers are in the table.`);
  };

  const cell = (row, tag, column, text, title) => {
    const node = document.createElement(tag);
    node.textContent = text ?? "–";
    if (title) node.title = title;
    if (column.numeric) node.className = "num";
    if (tag === "th") node.scope = "col";
    row.append(node);
  };
  const tableOf = (payload) => {
    const table = document.createElement("table");
    table.className = "gw-table gw-table-plain";
    const head = table.createTHead().insertRow();
    for (const column of payload.table.columns) cell(head, "th", column, column.label);
    const body = table.createTBody();
    for (const values of payload.table.rows) {
      const row = body.insertRow();
      values.forEach((value, index) => cell(row, "td", payload.table.columns[index], value.text, value.exact));
    }
    return table;
  };

  const say = (section, text, { action, url, retry } = {}) => {
    const place = part(section, "message");
    place.replaceChildren();
    const words = document.createElement("span");
    words.textContent = text;
    place.append(words);
    if (action && url) {
      const link = document.createElement("a");
      link.className = "btn";
      link.href = url;
      link.textContent = action;
      place.append(link);
    }
    if (retry) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn";
      button.textContent = "Try again";
      button.addEventListener("click", () => fill(section));
      place.append(button);
    }
    place.hidden = false;
    place.setAttribute("role", retry ? "alert" : "note");
  };

  const tools = (section, on) => {
    for (const name of ["png", "csv"]) {
      const button = part(section, name);
      if (button) button.disabled = !on;
    }
    for (const button of section.querySelectorAll("[data-chart-view]")) button.disabled = !on;
  };

  const fill = async (section) => {
    const area = part(section, "area");
    area.setAttribute("aria-busy", "true");
    part(section, "message").hidden = true;
    part(section, "skeleton").hidden = figures.has(section);
    try {
      const answer = await fetch(section.dataset.chart, {
        headers: { Accept: "application/json" },
        credentials: "same-origin",
      });
      if (!answer.ok || !answer.headers.get("Content-Type")?.includes("json")) {
        throw new Error(answer.status === 403 ? "You may not see these figures." : `The figures did not load (${answer.status}).`);
      }
      await show(section, await answer.json());
    } catch (error) {
      part(section, "skeleton").hidden = true;
      say(section, error instanceof TypeError ? "The server cannot be reached." : error.message, { retry: true });
      tools(section, false);
    } finally {
      area.setAttribute("aria-busy", "false");
    }
  };

  const show = async (section, payload) => {
    if (payload.title) part(section, "title").textContent = payload.title;
    if (payload.lead) {
      part(section, "lead").textContent = payload.lead;
      part(section, "lead").hidden = false;
    }
    part(section, "asof").textContent = [`as of ${payload.as_of}, ${payload.zone}`, payload.source].filter(Boolean).join(" · ");
    const skeleton = part(section, "skeleton");
    if (payload.empty) {
      skeleton.hidden = false;
      skeleton.classList.add("gw-ghost");
      say(section, payload.empty.text, payload.empty);
      return tools(section, false);
    }
    figures.set(section, payload);
    tools(section, true);
    part(section, "table").replaceChildren(tableOf(payload));
    await draw(section);
    skeleton.hidden = true;
  };

  const save = (href, name) => {
    const link = document.createElement("a");
    link.href = href;
    link.download = name;
    link.click();
  };
  const fileName = (section, ending) =>
    `${part(section, "title").textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")}.${ending}`;

  const png = async (section) => {
    const library = await load();
    const plot = part(section, "plot");
    const layout = { ...plot.layout, paper_bgcolor: token("surface"), title: { text: part(section, "title").textContent, x: 0.02, font: { size: 15 } }, margin: { ...plot.layout.margin, t: 48 } };
    const url = await library.toImage({ data: plot.data, layout }, { format: "png", width: 1200, height: 600, scale: 2 });
    save(url, fileName(section, "png"));
  };
  // A cell that a spreadsheet would run as a formula is prefixed.
  const quote = (value) => {
    const text = String(value ?? "");
    const safe = /^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const csv = (section) => {
    const { columns, rows } = figures.get(section).table;
    const lines = [columns.map((column) => quote(column.unit ? `${column.label} (${column.unit})` : column.label))];
    for (const row of rows) lines.push(row.map((value) => quote(value.raw)));
    const text = lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    save(url, fileName(section, "csv"));
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };

  const view = (section, name) => {
    for (const button of section.querySelectorAll("[data-chart-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.chartView === name));
    }
    part(section, "plot").hidden = name !== "plot";
    part(section, "table").hidden = name !== "table";
    if (name === "plot") draw(section);
  };

  document.addEventListener("click", (event) => {
    const section = event.target.closest?.("[data-chart]");
    if (!section) return;
    const button = event.target.closest("[data-chart-view]");
    if (button) view(section, button.dataset.chartView);
    if (event.target.closest("[data-chart-png]")) png(section);
    if (event.target.closest("[data-chart-csv]")) csv(section);
  });
  document.addEventListener("gw:theme", () => {
    for (const section of figures.keys()) if (section.isConnected) draw(section);
  });

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        fill(entry.target);
      }
    },
    { rootMargin: "200px" },
  );
  const watch = (scope) => {
    const found = [...scope.querySelectorAll("[data-chart]")];
    if (scope.matches?.("[data-chart]")) found.push(scope);
    for (const section of found) {
      if (section.dataset.watched) continue;
      section.dataset.watched = "true";
      const height = Number(section.dataset.height) || 280;
      part(section, "area").style.minHeight = `${height}px`;
      tools(section, false);
      watcher.observe(section);
      sizes.observe(part(section, "plot"));
    }
  };
  // A chart follows its card, also when the sidebar is folded or the table was shown meanwhile.
  const sizes = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      if (target.data && contentRect.width > 0) window.Plotly.Plots.resize(target);
    }
  });

  // Figures of charts that htmx has replaced are let go.
  const forget = () => {
    for (const section of figures.keys()) {
      if (section.isConnected) continue;
      window.Plotly?.purge(part(section, "plot"));
      figures.delete(section);
    }
  };
  document.addEventListener("htmx:afterSettle", (event) => {
    forget();
    watch(event.detail.elt);
  });
  document.addEventListener("gw:refresh-charts", () => {
    for (const section of figures.keys()) if (section.isConnected) fill(section);
  });
  watch(document);
})();
