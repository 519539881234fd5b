// Shlink's web component, mounted as its web client mounts it, with the server and key in `window.server`.
import { ShlinkApiClient } from "@shlinkio/shlink-js-sdk";
import { FetchHttpClient } from "@shlinkio/shlink-js-sdk/fetch";
import { ShlinkWebComponent } from "@shlinkio/shlink-web-component";
import { createRoot } from "react-dom/client";

const client = new ShlinkApiClient(new FetchHttpClient(), window.server);
const { version } = await client.health();
createRoot(document.getElementById("root")).render(
  <ShlinkWebComponent
    serverVersion={version} apiClient={client} routesPrefix="" settings={{ realTimeUpdates: { enabled: false } }}
    createNotFound={() => <p>No such page</p>}
  />,
);
