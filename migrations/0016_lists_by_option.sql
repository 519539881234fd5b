-- Indexes of lists by what options a link has. Each holds only links that differ from most: a link without options, made
-- by a key of its own account, is in none of them.

CREATE INDEX links_disabled ON links (created_at DESC, code DESC) WHERE NOT enabled AND deleted_at IS NULL;
CREATE INDEX links_by_start ON links (starts_at) WHERE starts_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX links_by_creator ON links (created_by) WHERE created_by <> owner;
