"""The route table of the dashboard: every screen."""

from __future__ import annotations

from snapurl.model import Right
from snapurl.ui.guard import Screen
from snapurl.ui.screens import (
    accounts,
    batch,
    blocklist,
    cluster,
    exports,
    imports,
    keys,
    link,
    links,
    login,
    openid,
    overview,
    preferences,
    shared,
    static,
    statistics,
    webhooks,
)

SCREENS: tuple[Screen, ...] = (
    Screen("GET", "/ui/static/{version}/{name}", static.file, None),
    # -- login -----------------------------------------------------------------------------------------------
    Screen("GET", "/ui/login", login.form, None),
    Screen("POST", "/ui/login", login.submit, None),
    Screen("GET", "/ui/login/link", login.link, None),
    Screen("POST", "/ui/login/link", login.follow_link, None),
    Screen("GET", "/ui/login/openid", openid.begin, None),
    Screen("GET", "/ui/login/openid/return", openid.arrive, None),
    Screen("POST", "/ui/logout", login.log_out, None),
    # -- links -----------------------------------------------------------------------------------------------
    Screen("GET", "/ui", overview.show),
    Screen("GET", "/ui/links", links.show),
    Screen("POST", "/ui/batch", batch.change, Right.CHANGE, batch.change_again),
    Screen("GET", "/ui/export/{format}", exports.save),
    Screen("GET", "/ui/import", imports.show, Right.ADMIN),
    Screen("POST", "/ui/import/piece", imports.take, Right.ADMIN, takes_file=True),
    Screen("GET", "/ui/new", link.new, Right.CREATE),
    Screen("POST", "/ui/new", link.arrange_new),
    Screen("POST", "/ui/links", link.create, Right.CREATE, link.create_again),
    Screen("GET", "/ui/links/{code}", link.show),
    Screen("GET", "/ui/links/{code}/edit", link.edit, Right.CHANGE),
    Screen("POST", "/ui/links/{code}/edit", link.change, Right.CHANGE, link.change_again),
    Screen("POST", "/ui/links/{code}/arrange", link.arrange, Right.CHANGE),
    Screen("POST", "/ui/links/{code}/rename", link.rename, Right.CHANGE, link.rename_again),
    Screen("POST", "/ui/links/{code}/title", link.take_title, Right.CHANGE, link.take_title_again),
    Screen("POST", "/ui/links/{code}/delete", link.delete, Right.CHANGE),
    Screen("POST", "/ui/links/{code}/restore", link.restore, Right.CHANGE),
    Screen("POST", "/ui/links/{code}/publish", link.make_public, Right.CHANGE),
    Screen("POST", "/ui/links/{code}/unpublish", link.end_public, Right.CHANGE),
    Screen("GET", "/ui/links/{code}/qr/{format}", link.qr),
    Screen("GET", "/ui/links/{code}/tables/{table}", statistics.link_table),
    Screen("GET", "/ui/links/{code}/live", link.live),
    Screen("GET", "/ui/links/{code}/live/events", link.live_events),
    # -- statistics ------------------------------------------------------------------------------------------
    Screen("GET", "/ui/statistics", statistics.show),
    Screen("GET", "/ui/statistics/tables/{table}", statistics.table),
    Screen("GET", "/ui/shared/{code}/{secret}", shared.show, None),
    Screen("GET", "/ui/shared/{code}/{secret}/tables/{table}", shared.table, None),
    # -- keys ------------------------------------------------------------------------------------------------
    Screen("GET", "/ui/keys", keys.show, Right.ADMIN),
    Screen("POST", "/ui/keys", keys.create, Right.ADMIN, keys.create_again),
    Screen("GET", "/ui/keys/{key_id}/revoke", keys.confirm_revoke, Right.ADMIN),
    Screen("POST", "/ui/keys/{key_id}/revoke", keys.revoke, Right.ADMIN),
    # -- accounts --------------------------------------------------------------------------------------------
    Screen("GET", "/ui/accounts", accounts.show, Right.ADMIN),
    Screen("POST", "/ui/accounts", accounts.create, Right.ADMIN, accounts.create_again),
    Screen("GET", "/ui/accounts/{account_id}", accounts.one, Right.ADMIN),
    Screen("POST", "/ui/accounts/{account_id}/rename", accounts.rename, Right.ADMIN, accounts.rename_again),
    Screen(
        "GET",
        "/ui/accounts/{account_id}/transfer",
        accounts.confirm_transfer,
        Right.ADMIN,
        accounts.choose_again,
    ),
    Screen(
        "POST", "/ui/accounts/{account_id}/transfer", accounts.transfer, Right.ADMIN, accounts.choose_again
    ),
    # -- settings --------------------------------------------------------------------------------------------
    Screen("GET", "/ui/settings", preferences.show),
    Screen("POST", "/ui/settings", preferences.save),
    # -- webhooks --------------------------------------------------------------------------------------------
    Screen("GET", "/ui/webhooks", webhooks.show),
    Screen("POST", "/ui/webhooks", webhooks.create, Right.CHANGE, webhooks.create_again),
    Screen("GET", "/ui/webhooks/{webhook_id}", webhooks.one),
    Screen("POST", "/ui/webhooks/{webhook_id}/edit", webhooks.change, Right.CHANGE, webhooks.change_again),
    Screen("POST", "/ui/webhooks/{webhook_id}/switch", webhooks.switch, Right.CHANGE),
    Screen("POST", "/ui/webhooks/{webhook_id}/rotate", webhooks.rotate, Right.CHANGE),
    Screen("POST", "/ui/webhooks/{webhook_id}/test", webhooks.test, Right.CHANGE),
    Screen("POST", "/ui/webhooks/{webhook_id}/replay", webhooks.replay, Right.CHANGE, webhooks.change_again),
    Screen("GET", "/ui/webhooks/{webhook_id}/delete", webhooks.confirm_delete, Right.CHANGE),
    Screen("POST", "/ui/webhooks/{webhook_id}/delete", webhooks.delete, Right.CHANGE),
    # -- blocked hosts ---------------------------------------------------------------------------------------
    Screen("GET", "/ui/blocklist", blocklist.show, Right.ADMIN),
    Screen("POST", "/ui/blocklist", blocklist.try_typed, Right.ADMIN, blocklist.try_again),
    Screen("GET", "/ui/blocklist/links", blocklist.show_blocked, Right.ADMIN),
    Screen("POST", "/ui/blocklist/links", blocklist.disable, Right.ADMIN),
    # -- the cluster -----------------------------------------------------------------------------------------
    Screen("GET", "/ui/cluster", cluster.show, Right.ADMIN),
    Screen("GET", "/ui/cluster/state", cluster.state, Right.ADMIN),
    Screen("GET", "/ui/cluster/events", cluster.events, Right.ADMIN),
)
