// The output of a job: lines as they come, searched and followed.
"use strict";
(() => {
  const list = document.getElementById("log");
  if (!list) return;
  const most = 5000; // lines on the page: the oldest go
  const state = document.getElementById("log-state");
  const follow = document.getElementById("log-follow");
  const search = document.getElementById("log-filter");
  let phrase = "";
  let isOver = false;

  const tell = (text) => { if (state.textContent !== text) state.textContent = text; };
  const isShown = (row) => row.dataset.text.includes(phrase);

  function cell(name, text) {
    const made = document.createElement("span");
    made.className = name;
    made.textContent = text;
    return made;
  }

  function rowOf({ time, node, input, stream, text }) {
    const row = document.createElement("li");
    row.className = stream;
    row.dataset.text = `${text} ${node} input ${input}`.toLowerCase();
    row.append(cell("when", time), cell("where", `${node} ${input}`), cell("what", text));
    row.title = `${time} UTC, ${node}, input ${input}, ${stream}`;
    row.hidden = !isShown(row);
    return row;
  }

  function take({ lines, over, why }) {
    const rows = document.createDocumentFragment();
    for (const line of lines) rows.append(rowOf(line));
    list.append(rows);
    while (list.childElementCount > most) list.firstElementChild.remove();
    if (follow.checked && lines.length) list.scrollTop = list.scrollHeight;
    isOver = over;
    const count = list.childElementCount;
    if (why) tell(why);
    else if (!count) tell(over ? "It has printed nothing." : "It has printed nothing yet.");
    else tell(`${count.toLocaleString("en")} line${count === 1 ? "" : "s"}${over ? "" : ", more may come"}`);
  }

  search.addEventListener("input", () => {
    phrase = search.value.toLowerCase();
    for (const row of list.children) row.hidden = !isShown(row);
  });
  list.addEventListener("scroll", () => {
    follow.checked = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
  });
  follow.addEventListener("change", () => { if (follow.checked) list.scrollTop = list.scrollHeight; });

  // As with the page: who is not seen asks for nothing, and goes on from where it was.
  let source = null;
  let after = "";
  const close = () => { if (source) source.close(); source = null; };
  const open = () => {
    if (source || isOver || document.hidden) return;
    source = new EventSource(`${list.dataset.events}?after=${after}`);
    source.onmessage = (event) => {
      after = event.lastEventId || after;
      take(JSON.parse(event.data));
      const { why } = JSON.parse(event.data);
      if (isOver || why) close();
      if (why) setTimeout(open, 3000); // the cluster may be back
    };
    source.onerror = () => {
      close();
      setTimeout(open, 2000);
    };
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
})();
