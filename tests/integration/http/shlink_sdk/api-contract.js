//#region src/api-contract/errors.ts
var e = {
	INVALID_ARGUMENT: "https://shlink.io/api/error/invalid-data",
	INVALID_SHORT_URL_DELETION: "https://shlink.io/api/error/invalid-short-url-deletion",
	DOMAIN_NOT_FOUND: "https://shlink.io/api/error/domain-not-found",
	FORBIDDEN_OPERATION: "https://shlink.io/api/error/forbidden-tag-operation",
	INVALID_SLUG: "https://shlink.io/api/error/non-unique-slug",
	INVALID_SHORTCODE: "https://shlink.io/api/error/short-url-not-found",
	TAG_CONFLICT: "https://shlink.io/api/error/tag-conflict",
	TAG_NOT_FOUND: "https://shlink.io/api/error/tag-not-found",
	MERCURE_NOT_CONFIGURED: "https://shlink.io/api/error/mercure-not-configured",
	INVALID_AUTHORIZATION: "https://shlink.io/api/error/missing-authentication",
	INVALID_API_KEY: "https://shlink.io/api/error/invalid-api-key",
	NOT_FOUND: "https://shlink.io/api/error/not-found",
	INVALID_URL: "https://shlink.io/api/error/invalid-url"
};
Object.freeze(e);
//#endregion
export { e as ErrorType };
