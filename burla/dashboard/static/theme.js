// Light, dark, or as the system has it. Loaded first, so that nothing flashes.
"use strict";
(() => {
  const names = ["auto", "light", "dark"];
  const kept = () => {
    try { return localStorage.getItem("burla-theme"); } catch { return null; }
  };
  let name = names.includes(kept()) ? kept() : "auto";
  const show = () => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    const label = document.getElementById("theme-name");
    if (label) label.textContent = name;
    document.dispatchEvent(new Event("themed"));
  };
  const next = () => {
    name = names[(names.indexOf(name) + 1) % names.length];
    try { localStorage.setItem("burla-theme", name); } catch { /* it lasts as long as the page */ }
    show();
  };
  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  window.burlaTheme = { next };
})();
