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

async function load(key) {
  const said = document.getElementById("said");
  const answer = await fetch("openapi.json", { headers: key ? { "x-api-key": key } : {} });
  const form = await answer.json();
  said.textContent = answer.ok ? "" : form.error;
  if (!answer.ok) return;
  // Behind a prefix the page knows better where it is than the server does.
  form.servers = [{ url: new URL(".", document.location).pathname }];
  show(form, key);
}

document.getElementById("key").addEventListener("submit", function (event) {
  event.preventDefault();
  load(document.getElementById("text").value.trim());
});
load("");
