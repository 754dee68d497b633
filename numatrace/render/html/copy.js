// Commands with a button that copies exactly what is shown.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// Where a page is not trusted with the clipboard: a report that a plain web server hands out.
function copyBySelection(text) {
  const area = h("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

function copyButton(text, label, what) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `${label}: ${what}` }, label);
  button.addEventListener("click", async () => {
    const copied = await copyText(text);
    button.textContent = copied ? "Copied" : "Select and copy by hand";
    button.classList.toggle("done", copied);
    say(copied ? `Copied: ${what}` : "The browser did not allow copying");
    button.focus();
    setTimeout(() => { button.textContent = label; button.classList.remove("done"); }, 2000);
  });
  return button;
}

function commandBox(step, what) {
  const code = h("pre", { tabindex: 0, class: "command" }, h("code", {}, step.command));
  if (step.unshowable)
    return h("div", { class: "box" }, code,
      h("p", { class: "warn" }, "Not to be copied: it is too long, or has characters that cannot be shown. ",
        h("code", {}, "numatrace analyze --json"), " has all of it."));
  return h("div", { class: "box" }, code, copyButton(step.command, "Copy", what));
}
