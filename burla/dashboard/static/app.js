// Brings the page up to date as the server tells what has changed; keyboard, filters.
"use strict";
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  const partOf = (name) => main.querySelector(`[data-part="${name}"]`);

  // --- what comes from the server ---

  const chart = main.querySelector("[data-chart]");
  const draw = chart ? chartIn(chart) : null;

  function cell(nodes, [at, classes, title]) {
    const node = nodes[at];
    if (!node) return;
    node.className = `node ${classes}`;
    node.title = title;
    node.setAttribute("aria-label", title);
  }

  function take(change) {
    for (const [name, html] of Object.entries(change.parts || {})) {
      const part = partOf(name);
      if (part) morph(part, html);
    }
    if (change.cells) {
      const nodes = main.querySelectorAll("[data-grid] > .node");
      for (const one of change.cells) cell(nodes, one);
    }
    if (draw && (change.points || change.first)) draw(change.points || [], change.first);
    main.classList.toggle("stale", Boolean(change.stale));
    if (!change.stale) main.classList.remove("nothing");
    filterAll();
  }

  function say(isLive, text) {
    if (!live) return;
    live.classList.toggle("lost", !isLive);
    if (live.lastElementChild.textContent !== text) live.lastElementChild.textContent = text;
  }

  // A page that nobody sees asks for nothing: browsers have few connections for each server.
  const { events } = document.body.dataset;
  let source = null;

  function listen() {
    if (source || !events) return;
    source = new EventSource(events);
    source.onmessage = (event) => {
      take(JSON.parse(event.data));
      say(true, "live");
    };
    source.onopen = () => say(true, "live");
    source.onerror = () => {
      say(false, "not live: does burla dashboard still run?");
      main.classList.add("stale");
      if (source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(listen, 2000);
      }
    };
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) listen();
    else if (source) {
      source.close();
      source = null;
      say(true, "paused");
    }
  });
  if (!document.hidden) listen();

  // --- filters ---

  function filter(input) {
    const part = partOf(input.dataset.filter);
    if (!part) return;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of part.querySelectorAll("[data-text]")) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    for (const group of part.querySelectorAll("details.failures")) {
      group.hidden = words.length > 0 && !group.querySelector("[data-text]:not([hidden])");
      if (words.length > 0 && !group.hidden) group.open = true;
    }
  }
  const inputs = [...main.querySelectorAll("[data-filter]")];
  const filterAll = () => inputs.forEach((input) => input.value && filter(input));
  inputs.forEach((input) => input.addEventListener("input", () => filter(input)));

  // --- keyboard ---

  function inGrid(event) {
    const here = event.target.closest("[data-grid] > .node");
    if (!here) return;
    const nodes = [...here.parentElement.querySelectorAll(":scope > .node")];
    const perLine = nodes.filter((node) => node.offsetTop === nodes[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perLine, ArrowUp: -perLine };
    const at = nodes.indexOf(here);
    let to = event.key === "Home" ? 0 : event.key === "End" ? nodes.length - 1 : at + (steps[event.key] || 0);
    to = Math.min(Math.max(to, 0), nodes.length - 1);
    if (to === at) return;
    event.preventDefault();
    here.tabIndex = -1;
    nodes[to].tabIndex = 0;
    nodes[to].focus();
  }

  document.addEventListener("keydown", (event) => {
    inGrid(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input, textarea, select");
    if (event.key === "Escape" && isTyping) event.target.blur();
    if (isTyping) return;
    if (event.key === "/" && inputs[0]) {
      event.preventDefault();
      inputs[0].focus();
    }
    if (event.key === "t") burlaTheme.next();
  });
})();
