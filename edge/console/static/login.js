// The sign-in: shows the token once, and gets a cookie that scripts cannot read.

const form = document.getElementById("form");
const token = document.getElementById("token");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "content-type": "application/json", "x-edge-console": "1" },
    body: JSON.stringify({ token: token.value }),
  }).catch(() => null);
  if (answer?.ok) {
    location.replace("/");
    return;
  }
  const said = await answer?.json().catch(() => null);
  problem.textContent = said?.error ?? "The console does not answer.";
  token.select();
});
