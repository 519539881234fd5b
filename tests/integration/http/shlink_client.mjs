// Calls Shlink's SDK as its web client does, and prints what came back. Arguments: the URL of the service, a key, a
// second server whose URL ends with a slash, as somebody may type it.
import { FetchHttpClient } from "./shlink_sdk/fetch.js";
import { ShlinkApiClient } from "./shlink_sdk/index.js";

const [baseUrl, apiKey] = process.argv.slice(2);
const client = new ShlinkApiClient(new FetchHttpClient(), { baseUrl, apiKey });
const stranger = new ShlinkApiClient(new FetchHttpClient(), { baseUrl: `${baseUrl}/`, apiKey: "wrong" });
const said = {};
const call = async (name, work) => {
  try {
    said[name] = { value: (await work()) ?? null };
  } catch (problem) {
    said[name] = { problem: problem instanceof Error ? String(problem) : problem };
  }
};
const page = { page: "1", itemsPerPage: 5000 };

await call("health", () => client.health());
await call("strangerHealth", () => stranger.health());
await call("strangerList", () => stranger.listShortUrls());
await call("mercure", () => client.mercureInfo());
await call("created", () =>
  client.createShortUrl({
    longUrl: "https://example.org/sdk?a=1", tags: ["sdk one", "sdk"], title: "SDK", customSlug: "sdk__slug",
    maxVisits: 3, validUntil: "2099-01-01T00:00:00+01:00", forwardQuery: true, crawlable: false, findIfExists: false,
  }));
await call("again", () => client.createShortUrl({ longUrl: "https://example.org/x", customSlug: "sdk__slug" }));
await call("invalid", () => client.createShortUrl({ longUrl: "ftp://example.org", tags: [] }));
await call("list", () => client.listShortUrls({ searchTerm: "SDK", tags: ["sdk"], tagsMode: "all", orderBy: { field: "visits", dir: "DESC" } }));
await call("read", () => client.getShortUrl({ shortCode: "sdk/slug", domain: null }));
await call("edited", () =>
  client.updateShortUrl({ shortCode: "sdk__slug" }, {
    longUrl: "https://example.org/sdk?a=1", tags: ["sdk"], title: null, maxVisits: 3, crawlable: false, forwardQuery: false,
    validSince: null, validUntil: "2098-12-31T23:00:00+00:00", domain: null,
  }));
await call("rules", () =>
  client.setShortUrlRedirectRules({ shortCode: "sdk__slug" }, {
    redirectRules: [{ longUrl: "https://example.org/ios", priority: 7, conditions: [{ type: "device", matchKey: null, matchValue: "ios" }] }],
  }));
await call("rulesRead", () => client.getShortUrlRedirectRules({ shortCode: "sdk/slug" }));
await call("visits", () => client.getShortUrlVisits({ shortCode: "sdk__slug" }, page));
await call("tagVisits", () => client.getTagVisits("sdk", page));
await call("noTagVisits", () => client.getTagVisits("none/such", page));
await call("domainVisits", () => client.getDomainVisits("DEFAULT", page));
await call("orphans", () => client.getOrphanVisits({ ...page, type: "base_url" }));
await call("nonOrphans", () => client.getNonOrphanVisits(page));
await call("overview", () => client.getVisitsOverview());
await call("deletedVisits", () => client.deleteShortUrlVisits({ shortCode: "sdk__slug" }));
await call("deletedOrphans", () => client.deleteOrphanVisits());
await call("tags", () => client.listTags());
await call("tagsStats", () => client.tagsStats());
await call("renamed", () => client.editTag({ oldName: "sdk", newName: "sdk new" }));
await call("deletedTags", () => client.deleteTags(["sdk new", "no such tag"]));
await call("domains", () => client.listDomains());
await call("redirects", () => client.editDomainRedirects({ domain: "s.example.org", baseUrlRedirect: "https://example.org" }));
await call("deleted", () => client.deleteShortUrl({ shortCode: "sdk__slug" }));
await call("gone", () => client.getShortUrl({ shortCode: "sdk__slug" }));
console.log(JSON.stringify(said));
