// Shows what api/runs tells, again and again. Everything that comes from there is somebody's input:
// it becomes text and never markup, and a link only where it is one to http or https.
"use strict";

const EVERY_MS = 2000;
const LIMIT_MS = 10000;
// Of each connection; the oldest come first.
const MOST = 200;

const at = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  if (days > 0) return `${days} d ${hours % 24} h`;
  if (hours > 0) return `${hours} h ${minutes % 60} min`;
  if (minutes > 0) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

function webAddress(text) {
  if (!text || !URL.canParse(text)) return null;
  const url = new URL(text);
  return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
}

function request(run) {
  const cell = element("td", run.id);
  const labels = Object.entries(run.labels).map(([name, value]) => `${name}: ${value}`);
  if (labels.length > 0) cell.append(element("small", labels.join(", ")));
  return cell;
}

function state(run) {
  const cell = element("td", run.state ?? "not started");
  if (run.total > 1) cell.append(element("small", `${run.done} of ${run.total} tasks`));
  if (run.cancel_requested) cell.append(element("small", "cancel requested"));
  return cell;
}

function link(run) {
  const cell = element("td");
  const text = run.run_id ?? (run.run_page_url ? "page" : "");
  const address = webAddress(run.run_page_url);
  if (address) {
    const anchor = element("a", text);
    anchor.href = address;
    anchor.rel = "noreferrer noopener";
    anchor.target = "_blank";
    cell.append(anchor);
  } else {
    cell.append(text);
  }
  return cell;
}

function row(run, now) {
  const cells = element("tr");
  const since = element("time", duration(now - new Date(run.received_at)));
  since.dateTime = run.received_at;
  since.title = new Date(run.received_at).toLocaleString();
  const here = element("td");
  here.append(since);
  const attempt = element("td", run.attempt ?? "");
  cells.append(element("td", run.connection), request(run), attempt, state(run), link(run), here);
  return cells;
}

function health(text, good) {
  at("health").textContent = text;
  at("health").className = good ? "good" : "bad";
}

function show(told) {
  const { readiness, in_flight: inFlight, runs } = told;
  const now = new Date(told.now);
  at("worker").textContent = told.worker;
  const ready = readiness.ready ? "ready" : "not ready";
  health(readiness.draining ? "handing everything back" : ready, readiness.ready);

  const troubles = Object.entries(readiness.connections).filter(([, trouble]) => trouble);
  if (readiness.queue) troubles.unshift(["queue", readiness.queue]);
  if (readiness.configuration) troubles.unshift(["configuration refused", readiness.configuration]);
  at("troubles").replaceChildren(
    ...troubles.map(([name, trouble]) => element("li", `${name}: ${trouble}`)),
  );
  at("connections").replaceChildren(
    ...Object.entries(inFlight).map(([name, count]) =>
      element("li", `${name}: ${count} under way`, readiness.connections[name] ? "ill" : ""),
    ),
  );

  at("runs").tBodies[0].replaceChildren(...runs.map((run) => row(run, now)));
  at("runs").hidden = runs.length === 0;
  at("runs").className = "";
  at("none").hidden = runs.length > 0;
  const all = Object.values(inFlight).reduce((sum, count) => sum + count, 0);
  at("more").hidden = all <= runs.length;
  at("more").textContent = `${runs.length} of ${all} are shown, the oldest of each connection.`;
}

async function refresh() {
  try {
    const signal = AbortSignal.timeout(LIMIT_MS);
    const reply = await fetch(`api/runs?limit=${MOST}`, { cache: "no-store", signal });
    if (!reply.ok) throw new Error(`HTTP ${reply.status}`);
    show(await reply.json());
  } catch {
    health("the worker does not answer", false);
    at("runs").className = "stale";
  }
}

async function goOn() {
  if (!document.hidden) await refresh();
  setTimeout(goOn, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
goOn();
