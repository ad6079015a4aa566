// Updates the operator's dashboard: fetches the fleet's picture every two seconds and replaces the page's
// parts. All text from the fleet is inserted as text, never as markup.
"use strict";

(() => {
  const EVERY = 2000;
  // A poll that takes longer is aborted; the worker that got it may be gone.
  const PATIENCE = 8000;
  const CHART_SPAN = 10 * 60 * 1000;
  // Samples further apart than this are not joined, because the counts between them are unknown.
  const GAP = 15000;
  // How long the rates of one worker count.
  const RATES_LAST = 60000;

  const find = (id) => document.getElementById("live-" + id);

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // Does not touch the page when nothing changes, so that a selection stays.
  function put(parent, children) {
    const next = document.createElement(parent.tagName);
    next.append(...children);
    if (next.innerHTML !== parent.innerHTML) parent.replaceChildren(...next.childNodes);
  }

  function figure(id, value, tone) {
    const box = find(id);
    const shown = box.querySelector(".value");
    if (shown.textContent !== value) shown.textContent = value;
    if (tone) box.className = "figure " + tone;
  }

  // Writes a duration as the server does.
  function spoken(milliseconds) {
    const seconds = Math.max(0, Math.round(milliseconds / 1000));
    const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    if (h > 0) return m > 0 ? `${h}h ${m}m` : `${h}h`;
    if (m > 0) return s > 0 ? `${m}m ${s}s` : `${m}m`;
    return `${s}s`;
  }

  const time = (text) => new Date(text).toISOString().slice(11, 19);
  const shown = (value) => (value === null || value === undefined ? "?" : String(value));
  const state = (of) => element("span", { class: "state " + of.tone }, of.name);

  // --- The parts of the picture ------------------------------------------------------------------

  // A healthy worker needs no explanation.
  function explained(row) {
    const why = row.reason ?? (row.state.tone === "ok" ? null : row.state.meaning);
    return why === null ? [] : [element("small", {}, why)];
  }

  function drawWorkers(picture, now) {
    const rows = picture.workers.map((row) => {
      const release = element("td", {}, row.release === null ? "–" : element("code", {}, row.release));
      if (row.version !== null) release.append(element("small", {}, "version " + row.version));
      return element("tr", {},
        element("td", {}, row.id === null ? element("span", { class: "muted" }, "no id yet") : element("code", {}, row.id)),
        element("td", {}, state(row.state), ...explained(row)),
        element("td", {}, spoken(now - new Date(row.since))),
        element("td", {}, row.is_registered ? "yes" : "no"),
        element("td", {}, row.zone ?? "–"),
        element("td", {}, row.slot === null ? "–" : String(row.slot)),
        release);
    });
    if (rows.length === 0) rows.push(element("tr", {}, element("td", { colspan: "7" }, "No workers are known.")));
    put(find("workers"), rows);
    find("checked").textContent = picture.last_check === null
      ? "Never checked" : `Last check ${spoken(now - new Date(picture.last_check))} ago`;
    const holder = picture.balancer;
    put(find("balancer"), holder === null ? [] : [
      "Load balancer ", element("code", {}, holder.id), " ", state(holder.state),
      ` for ${spoken(now - new Date(holder.since))}`,
    ]);
  }

  function drawLists(picture) {
    put(find("problems"), picture.problems.map((text) => element("p", { class: "note warn" }, text)));
    const held = picture.held.map((text) => element("li", {}, text));
    put(find("held"), held.length > 0 ? held : [element("li", { class: "muted" }, "Nothing.")]);
    const events = picture.events.map((event) => element("li", {},
      element("time", { datetime: event.at, title: event.at }, time(event.at)),
      element("span", {}, event.text)));
    put(find("events"), events.length > 0 ? events : [element("li", { class: "muted" }, "Nothing yet.")]);
  }

  // --- Rates: each poll reaches one worker, which knows of its own work only --------------------------

  const rates = new Map();

  function drawRates(picture, at) {
    rates.set(picture.worker, { at, picture });
    for (const [worker, rate] of rates) if (at - rate.at > RATES_LAST) rates.delete(worker);
    const sum = (name) => [...rates.values()].reduce((all, rate) => all + rate.picture[name], 0);
    figure("requests", sum("requests_per_second").toFixed(1));
    figure("signins", String(sum("sign_ins_per_minute")));
    figure("refused", String(sum("refused_per_minute")));
    const of = Math.max(picture.healthy ?? 0, rates.size);
    const text = `Requests and sign-ins of the last minute, from ${rates.size} of ${of} workers.`;
    put(find("rates"), [element("small", {}, text)]);
  }

  // --- The chart ----------------------------------------------------------------------------------

  // Kept for as long as the tab is open, because setting the amount loads the page again.
  const KEPT = "vigia-samples";
  const samples = kept();

  function kept() {
    const isCount = (number) => Number.isInteger(number) && number >= 0;
    const isSample = (s) => isCount(s.at) && isCount(s.desired) && isCount(s.healthy) && s.at <= Date.now();
    try {
      return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]").filter(isSample);
    } catch {
      return [];
    }
  }

  function sample(picture, at) {
    if (picture.desired === null || picture.healthy === null) return;
    samples.push({ at, desired: picture.desired, healthy: picture.healthy });
    while (samples[0].at < at - CHART_SPAN) samples.shift();
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(samples));
    } catch {
      // The browser stores nothing: the chart starts again with each page.
    }
  }

  function shape(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function drawChart() {
    if (samples.length === 0) return;
    const svg = find("chart").querySelector("svg");
    if (svg.hasAttribute("hidden")) {
      svg.removeAttribute("hidden");
      svg.previousElementSibling.remove();
    }
    const [width, height] = [Math.max(240, svg.clientWidth), svg.clientHeight || 240];
    const box = { left: 34, right: width - 10, top: 12, bottom: height - 26 };
    const last = samples[samples.length - 1];
    // A minute at least, so that the first samples do not jump about.
    const span = Math.max(60000, last.at - samples[0].at);
    const most = Math.max(...samples.map((s) => Math.max(s.desired, s.healthy)), 3) + 1;
    const x = (at) => box.right - (last.at - at) / span * (box.right - box.left);
    const y = (count) => box.bottom - count / most * (box.bottom - box.top);
    const made = [];

    const step = Math.max(1, Math.ceil(most / 5));
    for (let count = 0; count <= most; count += step) {
      made.push(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: y(count), y2: y(count) }));
      made.push(shape("text", { x: box.left - 8, y: y(count) + 4, "text-anchor": "end" }, String(count)));
    }
    const marks = width < 480 ? 2 : 4;
    for (let mark = 0; mark <= marks; mark += 1) {
      const ago = span * (1 - mark / marks);
      const anchor = mark === 0 ? "start" : mark === marks ? "end" : "middle";
      const label = ago < 500 ? "now" : `${spoken(ago)} ago`;
      made.push(shape("text", { x: x(last.at - ago), y: height - 6, "text-anchor": anchor }, label));
    }

    // Steps: a count holds until the next sample says otherwise.
    const line = (name) => samples.map((s, n) => {
      const before = samples[n - 1];
      if (before === undefined || s.at - before.at > GAP) return `M${x(s.at)} ${y(s[name])}`;
      return `H${x(s.at)}V${y(s[name])}`;
    }).join("");
    let area = "";
    let began = null;
    samples.forEach((s, n) => {
      const [before, next] = [samples[n - 1], samples[n + 1]];
      if (before === undefined || s.at - before.at > GAP) {
        began = x(s.at);
        area += `M${began} ${box.bottom}V${y(s.healthy)}`;
      } else {
        area += `H${x(s.at)}V${y(s.healthy)}`;
      }
      if (next === undefined || next.at - s.at > GAP) area += `V${box.bottom}H${began}Z`;
    });
    made.push(shape("path", { class: "area", d: area }));
    made.push(shape("path", { class: "healthy", d: line("healthy") }));
    made.push(shape("path", { class: "desired", d: line("desired") }));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label",
      `${last.healthy} of ${last.desired} workers are healthy; the chart shows the last ${spoken(last.at - samples[0].at)}`);
    svg.replaceChildren(...made);
  }

  // --- Asking ------------------------------------------------------------------------------------------

  let answered = new Date();
  let isAsking = false;
  let hasEnded = false;

  function say(tone, ...text) {
    const status = find("status");
    put(status, text);
    status.className = "lead live " + tone;
  }

  function draw(picture) {
    const at = Date.now();
    // Ages are by the worker's clock: the one of this machine may be wrong.
    const now = new Date(picture.at).getTime();
    const isComplete = picture.desired !== null && picture.desired === picture.healthy;
    figure("desired", shown(picture.desired));
    figure("healthy", shown(picture.healthy), isComplete ? "ok" : "warn");
    drawWorkers(picture, now);
    drawLists(picture);
    drawRates(picture, at);
    sample(picture, at);
    drawChart();
    answered = new Date(at);
    say("on", isComplete
      ? `Live. All ${picture.desired} workers are healthy.`
      : `Live. ${shown(picture.healthy)} of ${shown(picture.desired)} workers are healthy.`);
  }

  async function ask() {
    // The page is hidden: the session may become idle, and the fleet gets no polls.
    if (isAsking || hasEnded || document.hidden) return;
    isAsking = true;
    try {
      const response = await fetch("/admin/fleet", {
        headers: { Accept: "application/json" },
        cache: "no-store",
        credentials: "same-origin",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (response.status === 401) {
        hasEnded = true;
        say("off", "The session has ended. ", element("a", { href: "/admin" }, "Sign in again"), ".");
        return;
      }
      if (!response.ok) throw new Error(`status ${response.status}`);
      draw(await response.json());
    } catch (error) {
      say("off", `No answer since ${time(answered)} UTC (${error.message}); still trying.`);
    }
    isAsking = false;
  }

  // No second poll starts while one is in progress.
  setInterval(ask, EVERY);
  document.addEventListener("visibilitychange", ask);
  addEventListener("resize", drawChart);
  ask();
})();
