// A chart of points [time, rate, level], which grows.
"use strict";
window.chartIn = (element) => {
  const points = [[], [], []];
  const most = 1800;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) =>
    Math.abs(value) >= 1e9 ? `${+(value / 1e9).toPrecision(3)} G`
    : Math.abs(value) >= 1e6 ? `${+(value / 1e6).toPrecision(3)} M`
    : Math.abs(value) >= 1e4 ? `${+(value / 1e3).toPrecision(3)} k`
    : `${+value.toPrecision(3)}`;
  // as all times of burla: UTC
  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);
  // Of the point under the cursor; without one, of the last.
  const said = (at, show) => (_, value) => {
    const shown = value === null || value === undefined ? points[at][points[at].length - 1] : value;
    return shown === undefined ? "" : show(shown);
  };
  let plot = null;

  function axes() {
    const usual = { stroke: color("--quiet"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: color("--line"), width: 1 };
    return [
      { ...usual, grid: { show: false }, space: 90, values: (_, at) => at.map(clock) },
      { ...usual, grid, size: 48, space: 34, values: (_, at) => at.map(short) },
    ];
  }

  function make() {
    if (plot) plot.destroy();
    plot = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height: 190,
        padding: [10, 26, 0, 0],
        legend: { show: true, live: true },
        cursor: { y: false, points: { size: 6 } },
        scales: { x: { time: false }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
        axes: axes(),
        series: [
          { label: "at (UTC)", value: said(0, clock) },
          { label: "a second", stroke: color("--accent"), width: 2, fill: color("--accent-soft"), points: { show: false }, value: said(1, short) },
          { label: "run now", stroke: color("--second"), width: 1.5, dash: [4, 3], points: { show: false }, value: said(2, short) },
        ],
      },
      points,
      element,
    );
  }

  new ResizeObserver(() => {
    if (plot) plot.setSize({ width: Math.max(200, element.clientWidth), height: 190 });
  }).observe(element);
  document.addEventListener("themed", () => plot && make());

  return (more, isAll) => {
    if (isAll) for (const each of points) each.length = 0;
    for (const point of more) point.forEach((value, at) => points[at].push(value));
    for (const each of points) each.splice(0, Math.max(0, each.length - most));
    element.classList.toggle("waits", points[0].length < 2);
    if (points[0].length < 2) return; // it would have an axis of no time in particular
    if (!plot) make();
    else plot.setData(points);
  };
};
