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
  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
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
          { label: "at", value: (_, at) => (at === null || at === undefined ? "" : clock(at)) },
          { label: "a second", stroke: color("--accent"), width: 2, fill: color("--accent-soft"), points: { show: false }, value: (_, v) => (v === null || v === undefined ? "" : short(v)) },
          { label: "run now", stroke: color("--second"), width: 1.5, dash: [4, 3], points: { show: false }, value: (_, v) => (v === null || v === undefined ? "" : short(v)) },
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
    if (!plot) make();
    else plot.setData(points);
  };
};
