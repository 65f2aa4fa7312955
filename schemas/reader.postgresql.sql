-- The role that feedback_etl connects with: it reads the feedback tables and can do nothing else.
--
-- Sessions of feedback_etl are read-only, but PostgreSQL does not apply that to every function: lo_export writes a file
-- on the server, and dblink_exec writes through a second connection. A superuser may call both in a --query.
-- Run this as the owner of the tables, then set a password: \password feedback_reader

CREATE ROLE feedback_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS;
ALTER ROLE feedback_reader SET default_transaction_read_only = on;
GRANT USAGE ON SCHEMA public TO feedback_reader;
GRANT SELECT ON recommendation_feedbacks, recommendation_records, profiles, users TO feedback_reader;

-- Every role may execute the functions of dblink, where it is installed.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN SELECT oid FROM pg_proc WHERE proname LIKE 'dblink%' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
    END LOOP;
END
$$;
