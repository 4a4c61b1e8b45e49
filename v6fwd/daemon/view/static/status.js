// Draws the events of /status/events. What comes is put in as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

function scaled(number, units, base = 1000) {
  let unit = 0;
  while (number >= base * 0.9995 && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return `${number.toFixed(digits)} ${units[unit]}`.trim();
}
const size = (bytes) => scaled(bytes, UNITS);
const speed = (bytes) => `${size(bytes)}/s`;
const rate = (number) => `${number < 10 ? Number(number.toFixed(1)) : Math.round(number)}/s`;
const whole = (number) => number.toLocaleString("en");
const span = (seconds) => seconds < 60 ? `${Math.floor(seconds)} s`
  : seconds < 3600 ? `${Math.floor(seconds / 60)} min`
  : seconds < 86400 ? `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`
  : `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
const moment = (stamp) => new Date(stamp * 1000).toLocaleString("sv");

function put(node, text) {
  if (node.textContent !== text) node.textContent = text; // a selection survives
}
function make(name, attributes = {}, ...inside) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

// ---- tables: a row for each key, its cells changed in place ----

class Table {
  constructor(node, caption, columns, key, sorted) {
    this.columns = columns;
    this.key = key;
    this.items = [];
    this.rows = new Map();
    this.current = new Map();
    this.sorted = { by: null, down: false };
    this.filter = "";
    this.heads = columns.map((column, at) => this.head(column, at));
    const head = make("thead", {}, make("tr", {}, ...this.heads));
    this.body = make("tbody");
    node.append(make("caption", {}, caption), head, this.body);
    if (sorted !== undefined) this.sort(sorted);
  }
  head(column, at) {
    if (column.act) return make("th", { scope: "col", class: "action" }, column.name);
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => this.sort(at));
    const head = make("th", { scope: "col", title: column.metric || "" }, button);
    if (column.number) head.className = "number";
    return head;
  }
  sort(at) {
    const down = this.sorted.by === at ? !this.sorted.down : Boolean(this.columns[at].number);
    this.sorted = { by: at, down };
    this.heads.forEach((head, each) => {
      if (each === at) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.draw();
  }
  show(items) {
    this.items = items;
    this.draw();
  }
  ordered() {
    const words = this.filter.toLowerCase();
    const shown = this.items.filter((item) => !words || this.columns.some(
      (column) => String(column.of(item)).toLowerCase().includes(words)));
    const column = this.columns[this.sorted.by];
    if (!column) return shown;
    const value = column.sort || column.of;
    const sign = this.sorted.down ? -1 : 1;
    const order = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    return shown.sort((a, b) => sign * order(value(a), value(b)));
  }
  draw() {
    const shown = this.ordered();
    const kept = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) {
      if (!kept.has(key)) {
        row.remove();
        this.rows.delete(key);
        this.current.delete(key);
      }
    }
    shown.forEach((item, at) => {
      const row = this.row(item);
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] || null);
    });
  }
  row(item) {
    const key = this.key(item);
    let row = this.rows.get(key);
    if (!row) {
      row = make("tr", {}, ...this.columns.map((column, at) => {
        const cell = at ? make("td") : make("th", { scope: "row" });
        if (column.act) {
          const button = make("button", { type: "button" }, column.name);
          button.addEventListener("click", () => column.act(this.current.get(key)));
          cell.append(button);
          cell.className = "action";
          return cell;
        }
        if (column.metric) cell.title = column.metric;
        cell.className = column.number ? "number" : column.text ? "text" : "";
        return cell;
      }));
      this.rows.set(key, row);
    }
    this.current.set(key, item);
    this.columns.forEach((column, at) => {
      if (column.act) row.children[at].firstChild.hidden = !column.may(item);
      else put(row.children[at], String(column.of(item)));
    });
    row.classList.toggle("bad", Boolean(item.note));
    return row;
  }
}

const column = (name, of, more = {}) => ({ name, of, ...more });
const action = (name, act, may = () => true) => ({ name, act, may, of: () => "" });
const number = (name, of, sort, metric) => ({ name, of, sort, metric, number: true });

const ERRORS = "v6fwd_flow_ends_total, v6fwd_dial_failures_total, v6fwd_refused_total, v6fwd_udp_datagrams_dropped_total";
const forwards = new Table($("forwards"), "A marked row serves no client.", [
  column("Listen", (r) => r.listen, { metric: "label listen" }),
  column("Container", (r) => r.container || "-"),
  column("Target", (r) => r.target || "-", { metric: "v6fwd_forward_info: target" }),
  column("Mode", (r) => r.state === "open" ? r.mode + (r.not_real && ` (${r.not_real})`) : r.state,
    { metric: "v6fwd_forward_info: client_ip, state" }),
  column("Why", (r) => r.why || "-"),
  number("Live", (r) => whole(r.live), (r) => r.live, "v6fwd_flows_active"),
  number("Flows/s", (r) => rate(r.rates.flows), (r) => r.rates.flows, "rate(v6fwd_flows_total)"),
  number("Up", (r) => speed(r.rates.up), (r) => r.rates.up, 'rate(v6fwd_bytes_total{direction="up"})'),
  number("Down", (r) => speed(r.rates.down), (r) => r.rates.down, 'rate(v6fwd_bytes_total{direction="down"})'),
  number("Flows", (r) => whole(r.flows), (r) => r.flows, "v6fwd_flows_total"),
  number("Errors", (r) => whole(r.errors), (r) => r.errors, ERRORS),
  column("Note", (r) => r.note, { metric: "v6fwd_mismatch", text: true }),
  action("Drain", (r) => ask(`Drain ${r.listen}? New clients are refused, flows may finish. The next reload opens it again.`,
    "Drain", { do: "drain", listen: r.listen }), (r) => r.state === "open"),
], (r) => r.listen, 0);

const groups = (id, name, command) => new Table($(id), `Of flows that live; ${command} lists all.`, [
  column(name, (g) => g.client || "gone"),
  column("Pseudo IPv4", (g) => g.pseudo || "-"),
  number("Flows", (g) => whole(g.flows), (g) => g.flows, command),
  number("Up", (g) => size(g.bytes_up), (g) => g.bytes_up, command),
  number("Down", (g) => size(g.bytes_down), (g) => g.bytes_down, command),
  number("For", (g) => span(g.seconds), (g) => g.seconds, command),
  action("Ban", (g) => ban(g.client), (g) => g.client),
], (g) => g.client);
const tables = {
  net: groups("net", "Network", "v6fwd flows --by net"),
  client: groups("client", "Client", "v6fwd flows --by client"),
};
const bans = new Table($("bans"), "At all forwards; v6fwd bans lists all.", [
  column("Client", (b) => b.network),
  column("Until", (b) => b.until ? moment(b.until) : "permanent"),
  action("Unban", (b) => ask(`Let ${b.network} in again?`, "Unban", { do: "unban", networks: [b.network] })),
], (b) => b.network, 0);

// ---- changes, where the daemon lets us ----

let token = "";
let asked = null;
function ask(what, verb, request) {
  asked = request;
  put($("confirm-what"), what);
  put($("confirm-yes"), verb);
  $("confirm-time").hidden = request.do !== "ban";
  $("confirm").showModal();
}
const ban = (who) => ask(`Ban ${who} at all forwards, and reset its flows?`, "Ban", { do: "ban", networks: [who] });

async function change(request) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": token };
  const address = `${location.origin}/status/do`; // without a password that the page's address has
  const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(request) });
  const told = await answer.json();
  if (told.error) return told.error.join(" ");
  if (told.result) return told.result;
  const who = told.bans.map((each) => each.network).join(", ");
  return request.do === "ban" ? `${who} is banned, ${whole(told.ended)} flows reset` : `${who} is no longer banned`;
}
$("confirm-yes").addEventListener("click", async () => {
  const request = asked;
  const seconds = $("confirm-for").value;
  if (request.do === "ban" && seconds) request.seconds = Number(seconds);
  $("confirm").close();
  put($("done"), "");
  put($("done"), await change(request).catch((error) => `no answer: ${error.message}`));
});
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("reload").addEventListener("click", () => ask("Read the configuration again?", "Reload", { do: "reload" }));
$("ban").addEventListener("click", () => $("ban-who").value.trim() && ban($("ban-who").value.trim()));

$("filter").addEventListener("input", (event) => {
  forwards.filter = event.target.value;
  forwards.draw();
});

// ---- figures and charts ----

const TOTALS = [
  ["Live flows", (s) => whole(s.live), "v6fwd_flows_active"],
  ["Flows", (s) => rate(s.rates.flows), "rate(v6fwd_flows_total)"],
  ["Up", (s) => speed(s.rates.up), 'rate(v6fwd_bytes_total{direction="up"})'],
  ["Down", (s) => speed(s.rates.down), 'rate(v6fwd_bytes_total{direction="down"})'],
  ["Errors", (s) => rate(s.rates.errors), ERRORS],
  ["All flows", (s) => whole(s.flows), "v6fwd_flows_total"],
  ["All errors", (s) => whole(s.errors), ERRORS],
  ["Held", (s) => whole(s.held), "v6fwd status: held", (s) => s.held],
  ["Mismatches", (s) => whole(s.mismatches), "v6fwd_mismatch", (s) => s.mismatches],
].map(([name, of, metric, isBad]) => {
  const value = make("dd", { title: metric });
  const box = make("div", {}, make("dt", {}, name), value);
  $("totals").append(box);
  return (status) => {
    put(value, of(status));
    box.classList.toggle("bad", Boolean(isBad && isBad(status)));
  };
});

const SVG = "http://www.w3.org/2000/svg";
const CHARTS = [
  ["flows", "Flows/s", rate, "rate(v6fwd_flows_total)"],
  ["up", "Up", speed, 'rate(v6fwd_bytes_total{direction="up"})'],
  ["down", "Down", speed, 'rate(v6fwd_bytes_total{direction="down"})'],
  ["errors", "Errors/s", rate, ERRORS],
  ["live", "Live flows", whole, "v6fwd_flows_active"],
].map(([key, name, text, metric]) => {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 119 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.append(path);
  const most = make("span");
  $("charts").append(make("figure", { title: metric }, make("figcaption", {}, make("span", {}, name), most), svg));
  return (history) => {
    const values = history[key];
    const top = Math.max(...values, 0);
    const first = 120 - values.length;
    const points = values.map((value, at) => `${first + at},${(98 - 96 * (top ? value / top : 0)).toFixed(1)}`);
    path.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    const last = values.length ? values[values.length - 1] : 0;
    put(most, `most ${text(top)}`);
    svg.setAttribute("aria-label", `${name}: now ${text(last)}, most ${text(top)}`);
  };
});

// ---- events ----

let paused = false;
const waiting = new Map();
const draw = {
  status(s) {
    put($("daemon"), `${s.version}, process ${s.pid}, since ${moment(s.since)}, ${s.workers} ${s.workers === 1 ? "worker" : "workers"}, ${s.restarts} restarted`);
    TOTALS.forEach((total) => total(s));
    forwards.show(s.rows);
    put($("hidden"), s.hidden ? `and ${whole(s.hidden)} that do less: v6fwd top` : "");
    const words = [];
    if (s.held) words.push(`${s.held} held`);
    if (s.mismatches) words.push(`${s.mismatches} with a mode that the target does not expect`);
    put($("trouble"), [words.length ? `Not served: ${words.join(", ")}.` : "", ...s.labels].filter(Boolean).join(" "));
  },
  history(h) {
    CHARTS.forEach((chart) => chart(h));
  },
  clients(both) {
    for (const by of ["net", "client"]) {
      const { rows, number } = both[by];
      tables[by].show(rows);
      put($(`${by}-more`), number > rows.length ? `and ${whole(number - rows.length)} others` : "");
    }
  },
  bans(b) {
    bans.show(b.rows.filter((each) => !each.until || each.until * 1000 > Date.now()));
    put($("bans-more"), b.more ? "and more" : "");
    $("banned").hidden = !b.rows.length && !token;
  },
  admin(a) {
    token = a.token;
    document.body.classList.add("admin");
    $("banned").hidden = false;
  },
  log(lines) {
    $("log").replaceChildren(...lines.reverse().map((line) => make("li", { class: line.level, title: line.event },
      make("time", {}, moment(line.at)), line.level === "info" ? "" : `${line.level}: `, line.text)));
  },
};

function state(text, isBad) {
  put($("state"), text);
  $("state").classList.toggle("bad", isBad);
}
function heard(name, data) {
  if (paused) waiting.set(name, data);
  else draw[name](JSON.parse(data));
}
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  for (const [name, data] of waiting) if (!paused) heard(name, data);
  waiting.clear();
  state(paused ? "paused" : "live", false);
});

function follow() {
  const source = new EventSource("/status/events");
  for (const name of Object.keys(draw)) source.addEventListener(name, (event) => heard(name, event.data));
  source.addEventListener("open", () => state(paused ? "paused" : "live", false));
  source.addEventListener("error", () => {
    state("no connection; trying again", true);
    if (source.readyState === EventSource.CLOSED) { // refused, as too many watch
      source.close();
      setTimeout(follow, 5000);
    }
  });
}
follow();
