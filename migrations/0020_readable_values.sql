-- rosterd cannot read infinity, years of six digits, NaN, or amounts of more than 28 digits; Harvest sends none. If one
-- is written by hand, PostgreSQL refuses it now; before, each cycle that read the row failed. NOT VALID: rows that are there
-- are not checked, so no table is read under the lock.

ALTER TABLE roster.accounts
    ADD CONSTRAINT accounts_times CHECK (
            last_full_at > '-infinity' AND last_full_at < '10001-01-01'
        AND last_success_at > '-infinity' AND last_success_at < '10001-01-01'
        AND history_since > '-infinity' AND history_since < '10001-01-01'
        AND first_full_at > '-infinity' AND first_full_at < '10001-01-01') NOT VALID;
ALTER TABLE roster.users
    ADD CONSTRAINT users_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01') NOT VALID,
    ADD CONSTRAINT users_amounts CHECK (
            abs(default_hourly_rate) < 7.9e28 AND scale(default_hourly_rate) <= 28
        AND abs(cost_rate) < 7.9e28 AND scale(cost_rate) <= 28) NOT VALID;
ALTER TABLE roster.user_assignments
    ADD CONSTRAINT user_assignments_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01') NOT VALID,
    ADD CONSTRAINT user_assignments_amounts CHECK (
            abs(hourly_rate) < 7.9e28 AND scale(hourly_rate) <= 28
        AND abs(budget) < 7.9e28 AND scale(budget) <= 28) NOT VALID;
ALTER TABLE roster.billable_rates
    ADD CONSTRAINT billable_rates_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND start_date > '-infinity' AND start_date < '10001-01-01'
        AND end_date > '-infinity' AND end_date < '10001-01-01') NOT VALID,
    ADD CONSTRAINT billable_rates_amounts CHECK (
            abs(amount) < 7.9e28 AND scale(amount) <= 28) NOT VALID;
ALTER TABLE roster.cost_rates
    ADD CONSTRAINT cost_rates_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND start_date > '-infinity' AND start_date < '10001-01-01'
        AND end_date > '-infinity' AND end_date < '10001-01-01') NOT VALID,
    ADD CONSTRAINT cost_rates_amounts CHECK (
            abs(amount) < 7.9e28 AND scale(amount) <= 28) NOT VALID;
ALTER TABLE roster.watermarks
    ADD CONSTRAINT watermarks_times CHECK (
            watermark > '-infinity' AND watermark < '10001-01-01'
        AND last_attempt_at > '-infinity' AND last_attempt_at < '10001-01-01'
        AND last_success_at > '-infinity' AND last_success_at < '10001-01-01'
        AND last_full_at > '-infinity' AND last_full_at < '10001-01-01'
        AND next_full_at > '-infinity' AND next_full_at < '10001-01-01') NOT VALID;
