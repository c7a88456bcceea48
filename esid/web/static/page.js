// Fetches the page again and puts its content in the place of the old one. Without this script the page says so and stays.
"use strict";
const EVERY_MS = 5000;
async function refresh() {
  const note = document.getElementById("note");
  try {
    const answer = await fetch("/", { cache: "no-store" });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (fresh) document.querySelector("main").replaceWith(fresh);
    note.textContent = "";
  } catch {
    note.textContent = "esid does not answer; what is shown is old.";
  }
}
setInterval(() => { if (!document.hidden) refresh(); }, EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
