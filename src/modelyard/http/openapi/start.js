// The key stays in this page's memory: it is sent to this server alone and stored nowhere.
"use strict";

function show(spec, key) {
  const page = SwaggerUIBundle({
    spec: spec,
    dom_id: "#page",
    deepLinking: true,
    docExpansion: "none",
    validatorUrl: null,
    persistAuthorization: false,
    onComplete: function () {
      if (key) page.preauthorizeApiKey("key", key);
    },
  });
}

let general = null; // the tags of what is the same for every key

function tagsOf(form) {
  const named = Object.values(form.paths).flatMap((path) => Object.values(path).flatMap((one) => one.tags || []));
  return [...new Set(named)];
}

// The models come first, and the page says which they are: below all other routes nobody would see that they came.
function putModelsFirst(form, said) {
  const tags = tagsOf(form);
  const mine = tags.filter((tag) => !general.includes(tag));
  const described = new Map((form.tags || []).map((tag) => [tag.name, tag]));
  form.tags = [...mine, ...tags.filter((tag) => general.includes(tag))].map((name) => described.get(name) || { name });
  said.textContent = mine.length ? "Shown first: " + mine.join(", ") : "This key may use no model.";
}

async function load(key) {
  const said = document.getElementById("said");
  const answer = await fetch("openapi.json", { headers: key ? { "x-api-key": key } : {} });
  const form = await answer.json();
  said.textContent = answer.ok ? "" : form.error;
  said.className = answer.ok ? "" : "wrong";
  if (!answer.ok) return;
  if (key && general) putModelsFirst(form, said);
  if (!key) general = tagsOf(form);
  // Behind a prefix the page knows better where it is than the server does.
  form.servers = [{ url: new URL(".", document.location).pathname }];
  show(form, key);
}

document.getElementById("key").addEventListener("submit", function (event) {
  event.preventDefault();
  load(document.getElementById("text").value.trim());
});
load("");
