// Makes what is on the page equal to new HTML, and touches only what differs: so the focus, what is
// selected, what is scrolled and which details are open stay as they are.
"use strict";
window.morph = (() => {
  const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key : undefined);

  const sameKind = (one, other) =>
    one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

  function attributes(from, to) {
    for (const { name, value } of [...to.attributes])
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    for (const { name } of [...from.attributes])
      if (!to.hasAttribute(name) && !isOurs(from, name)) from.removeAttribute(name);
  }

  // What people have done to the page since: opened something, moved along the grid, filtered.
  function isOurs(node, name) {
    return (name === "open" && node.nodeName === "DETAILS") || name === "hidden";
  }

  function one(from, to) {
    if (from.nodeType !== 1) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    if (from.nodeName === "DETAILS") to.open = from.open;
    attributes(from, to);
    children(from, to);
  }

  function children(from, to) {
    const keyed = new Map();
    for (const child of from.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let here = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const known = keyOf(wanted) && keyed.get(keyOf(wanted));
      if (known && sameKind(known, wanted)) {
        keyed.delete(keyOf(wanted)); // another of this key is another one
        if (known !== here) from.insertBefore(known, here);
        one(known, wanted);
        here = known.nextSibling;
      } else if (here && sameKind(here, wanted)) {
        one(here, wanted);
        here = here.nextSibling;
      } else {
        from.insertBefore(wanted, here);
      }
    }
    while (here) {
      const next = here.nextSibling;
      here.remove();
      here = next;
    }
  }

  return (element, html) => {
    const made = document.createElement("template");
    made.innerHTML = html;
    children(element, made.content);
  };
})();
