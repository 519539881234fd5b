// Starts the viewer on this deployment's own document. "Try it out" asks the address that this page came from,
// also where that is not the public one: the page's policy allows no other.
const response = await fetch("openapi.json");
const spec = await response.json();
spec.servers = [{ url: new URL(".", location).href.replace(/\/$/, "") }];
SwaggerUIBundle({ spec, dom_id: "#viewer", deepLinking: true, defaultModelsExpandDepth: 0, validatorUrl: null });
