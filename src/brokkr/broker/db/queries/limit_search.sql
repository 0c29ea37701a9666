-- Plan the statements of this transaction for their values, and let none take long: how much
-- has to be read to fill a page depends on what is asked for.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('statement_timeout', :timeout::text, true)
