-- What lists of links need: when a link was changed, and an index for each order and filter.
--
-- `changed_at` is null while a link has never been changed, so that a create writes no more than before. A trigger sets
-- it, because old workers go on calling the functions that do not know the column. It leaves alone what a hand-off
-- copies: such a row brings another `changed_at` with its version.

ALTER TABLE links ADD COLUMN changed_at timestamptz;

CREATE FUNCTION link_changed_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER links_changed BEFORE UPDATE ON links FOR EACH ROW
    WHEN (NEW.version <> OLD.version AND NEW.changed_at IS NOT DISTINCT FROM OLD.changed_at)
    EXECUTE FUNCTION link_changed_v1();

-- Every create pays for the first two. The others hold only links that have tags, an expiry, or were deleted.
CREATE INDEX links_by_code ON links (code);
CREATE INDEX links_by_change ON links ((coalesce(changed_at, created_at)) DESC, code DESC);
CREATE INDEX links_by_tag ON links USING gin (tags) WITH (fastupdate = off) WHERE tags <> '{}';
CREATE INDEX links_by_expiry ON links (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX links_deleted ON links (created_at DESC, code DESC) WHERE deleted_at IS NOT NULL;
