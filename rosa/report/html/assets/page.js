"use strict";

// Text goes into the page as text and never as markup, whatever a record holds.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = {"-": "", "--": "6 3", "-.": "7 3 2 3", ":": "2 3"};
const data = JSON.parse(document.getElementById("data").textContent);

function node(parent, tag, attributes = {}, text = "") {
  const made = parent.namespaceURI === SVG || tag === "svg"
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return parent.appendChild(made);
}

// --- sorting: numbers with the highest first, texts from A on, then the other way round, then as it was ---

function sortable(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  for (const [column, button] of [...table.tHead.querySelectorAll("button.sort")].entries()) {
    const heading = button.parentElement;
    const numeric = rows.some((row) => row.cells[column].dataset.order);
    const turns = numeric ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
    button.addEventListener("click", () => {
      const turn = turns[(turns.indexOf(heading.getAttribute("aria-sort")) + 1) % turns.length];
      for (const other of table.tHead.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", turn);
      body.append(...(turn === "none" ? rows : sorted(rows, column, numeric, turn === "ascending" ? 1 : -1)));
    });
  }
}

function sorted(rows, column, numeric, sign) {
  const key = (row) => numeric ? row.cells[column].dataset.order : row.cells[column].textContent;
  return [...rows].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1); // without a number: last, both ways
    return sign * (numeric ? a - b : a.localeCompare(b, "en", {numeric: true}));
  });
}

// --- filters ---

function filter(form) {
  const off = (name) => new Set([...form.querySelectorAll(`input[name=${name}]:not(:checked)`)].map((box) => box.value));
  const [tasks, methods] = [off("task"), off("method")];
  let [shown, all] = [0, 0];
  for (const table of document.querySelectorAll("main table:has(tbody [data-method])")) {
    for (const cell of table.querySelectorAll("th[data-task], td[data-task]")) cell.hidden = tasks.has(cell.dataset.task);
    const columns = [...table.tHead.querySelectorAll("th[data-task]")];
    const none = columns.length > 0 && columns.every((column) => column.hidden);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = none || tasks.has(row.dataset.task) || methods.has(row.dataset.method);
    averaged(table, columns.filter((column) => !column.hidden).length, columns.length);
    const left = rows.filter((row) => !row.hidden).length;
    table.parentElement.hidden = left === 0;
    table.parentElement.nextElementSibling.hidden = left > 0;
    [shown, all] = [shown + left, all + rows.length];
  }
  form.querySelector("[role=status]").textContent = `${shown} of ${all} rows shown`;
}

// The average over the tasks that are left; without its deviation and marks, which are those of all tasks.
const whole = new WeakMap();
function averaged(table, left, all) {
  const place = [...table.tHead.rows[0].cells].findIndex((heading) => "averaged" in heading.dataset);
  if (place < 0) return;
  const name = table.tHead.rows[0].cells[place].querySelector("button");
  name.textContent = left === all ? "Average" : `Average of ${left}`;
  for (const row of table.tBodies[0].rows) {
    const cell = row.cells[place];
    if (!whole.has(cell)) whole.set(cell, [[...cell.childNodes], cell.dataset.order]);
    const [nodes, order] = whole.get(cell);
    const parts = [...row.querySelectorAll("td[data-task]")].filter((one) => !one.hidden);
    const means = parts.map((one) => one.dataset.mean ?? one.dataset.order);
    const mean = means.length && !means.includes(undefined) && left < all
      ? means.reduce((sum, one) => sum + Number(one), 0) / means.length : undefined;
    if (left === all) cell.replaceChildren(...nodes);
    else cell.textContent = mean === undefined ? "—" : mean.toFixed(1);
    const shown = left === all ? order : mean;
    if (shown === undefined) delete cell.dataset.order;
    else cell.dataset.order = shown;
  }
}

// --- the runs of a cell ---

function show(number) {
  const cell = data.cells[number];
  const runs = cell.runs.map((place) => data.runs[place]);
  document.getElementById("runs-title").textContent = cell.title;
  const into = document.getElementById("runs");
  into.replaceChildren();
  const marked = runs.every((run) => run.shown) ? "" : "; the table shows the learning rate that is marked";
  node(into, "p", {}, `${runs.length} ${runs.length === 1 ? "run" : "runs"}${marked}.`);
  const looks = data.looks[cell.method];
  drawCurves(into, runs, cell.curve, looks);
  listRuns(into, runs, looks);
  listSettings(into, runs);
  listCommands(into, runs);
  const dialog = document.querySelector("dialog");
  dialog.showModal();
  dialog.scrollTop = 0;
}

function look(looks, place) {
  const [color, line] = looks[place % looks.length];
  return {stroke: color, "stroke-dasharray": DASHES[line], fill: "none"};
}

function drawCurves(into, runs, name, looks) {
  const points = runs.flatMap((run) => run.curve);
  if (!points.length) {
    node(into, "p", {}, `No ${name} by epoch is recorded.`);
    return;
  }
  const [epochs, values] = [points.map((point) => point[0]), points.map((point) => point[1])];
  const [first, last, lowest, highest] =
    [Math.min(...epochs), Math.max(...epochs), Math.min(...values), Math.max(...values)];
  const x = (epoch) => last > first ? 60 + 520 * (epoch - first) / (last - first) : 320;
  const y = (value) => highest > lowest ? 150 - 130 * (value - lowest) / (highest - lowest) : 85;
  const frame = node(into, "div", {class: "paper curve"});
  const svg = node(frame, "svg", {viewBox: "0 0 600 190", role: "img", "aria-label": `${name} after each epoch`});
  const write = (at, up, anchor, text) =>
    node(svg, "text", {x: at, y: up, "text-anchor": anchor, "font-size": 12, fill: "currentColor"}, text);
  node(svg, "path", {d: "M60 15V155H585", fill: "none", stroke: "currentColor"});
  for (const value of new Set([lowest, highest])) write(54, y(value) + 4, "end", value);
  for (const epoch of new Set([first, last])) write(x(epoch), 170, "middle", epoch);
  write(320, 185, "middle", `epoch; ${name}`);
  runs.forEach((run, place) => {
    const faint = run.shown ? {"stroke-width": 2} : {"stroke-width": 1, opacity: 0.6};
    node(svg, "polyline", {...look(looks, place), ...faint, points: run.curve.map(([epoch, value]) => `${x(epoch)},${y(value)}`).join(" ")});
    for (const [epoch, value] of run.curve) node(svg, "circle", {cx: x(epoch), cy: y(value), r: run.shown ? 2.5 : 1.5, fill: look(looks, place).stroke});
  });
}

function grid(into, caption, headings) {
  const scroll = node(into, "div", {class: "scroll", role: "group", "aria-label": caption, tabindex: 0});
  const table = node(scroll, "table");
  node(table, "caption", {}, caption);
  const heading = node(node(table, "thead"), "tr");
  for (const text of headings) node(heading, "th", {scope: "col"}, text);
  return node(table, "tbody");
}

function listRuns(into, runs, looks) {
  const several = runs.some((run) => !run.shown);
  const body = grid(into, "Runs", ["Learning rate", "Seed", "State", "Best epoch", "Last epoch", "Record"]);
  runs.forEach((run, place) => {
    const row = node(body, "tr");
    const heading = node(row, "th", {scope: "row"});
    const swatch = node(heading, "svg", {class: "swatch", width: 30, height: 12, "aria-hidden": "true"});
    node(swatch, "path", {...look(looks, place), d: "M0 6H30", "stroke-width": 2});
    heading.append(several && run.shown ? `${run.lr} (shown)` : run.lr);
    for (const text of [run.seed, run.status, run.best, run.last]) node(row, "td", {}, text === "" ? "—" : text);
    if (run.status !== "done") row.cells[2].className = "bad";
    if (run.file) node(node(row, "td"), "a", {href: run.file}, "record.json");
    else node(row, "td", {}, "—");
  });
}

function listSettings(into, runs) {
  const sets = [...new Set(runs.map((run) => run.settings))];
  for (const place of sets) {
    const seeds = runs.filter((run) => run.settings === place).map((run) => run.seed);
    const which = sets.length > 1 ? ` (seeds ${[...new Set(seeds)].join(", ")})` : "";
    const body = grid(into, `Settings that are not as by default${which}`, ["Setting", "Value", "Default"]);
    for (const [key, value, usual] of data.settings[place]) {
      const row = node(body, "tr");
      node(node(row, "th", {scope: "row"}), "code", {}, key);
      for (const text of [value, usual]) node(node(row, "td"), "code", {}, text);
    }
  }
}

function listCommands(into, runs) {
  node(into, "h3", {}, "Commands that repeat the runs");
  for (const run of runs) {
    node(into, "p", {}, `Learning rate ${run.lr}, seed ${run.seed}`);
    if (run.error) node(into, "p", {class: "loud"}, run.error);
    for (const warning of run.warnings) node(into, "p", {class: "loud"}, warning);
    node(into, "pre", {}, run.command);
  }
}

// --- start ---

document.querySelectorAll("main table").forEach(sortable);
document.querySelector("main").addEventListener("click", (event) => {
  const button = event.target.closest("button.cell");
  if (button) show(Number(button.dataset.runs));
});
const filters = document.querySelector("form.filters");
filters.hidden = false;
filters.addEventListener("change", () => filter(filters));
filters.addEventListener("reset", () => setTimeout(() => filter(filters))); // the boxes are reset after this event
filter(filters);

// On paper everything is open, and as it was afterwards.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
