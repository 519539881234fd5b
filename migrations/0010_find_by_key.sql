-- Steps of a hand-off find their rows by key. Before, a shard might compare each of its slots with each of the
-- batch, which took 0.1 s for a hundred of them: the planner expects one row of `slots` for so many conditions.
-- The functions are those of 0006 and 0008 but for `s.slot = ANY (p_slots)`.

CREATE OR REPLACE FUNCTION handoff_find_v1(
    p_step text, p_states text[], p_slots smallint[], p_epochs bigint[], p_peer text, p_token uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time()) THEN
        RAISE EXCEPTION '%: this server has started anew and was not vouched for yet', p_step
            USING ERRCODE = 'SN001';
    END IF;
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots)
           AND s.state = ANY (p_states) AND s.epoch = u.epoch AND s.peer IS NOT DISTINCT FROM p_peer
           AND (p_token IS NULL OR s.move_token = p_token)
         ORDER BY s.slot FOR UPDATE OF s) q;
    PERFORM handoff_expect_v1(p_step, p_slots, found);
END $$;

CREATE OR REPLACE FUNCTION handoff_hold_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots)
           AND s.state = 'importing' AND s.epoch = u.epoch AND s.peer = p_source AND s.move_token = p_token
         ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('hold', p_slots, found);
END $$;

CREATE OR REPLACE FUNCTION handoff_clean_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots) AND s.state = 'released' AND s.epoch = u.epoch
         ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('clean', p_slots, found);
END $$;
