// JDBC as applications use it: HikariCP's pool, named statements after a few runs,
// batches, cursors with a fetch size, COPY, large objects, metadata, cancel.
// A program of its own: prints `ok name`, `FAIL name: why`, `see name: value`.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGobject;

public class JdbcChecks {
    interface Body {
        void run() throws Exception;
    }

    static final boolean SHARDED = System.getenv("KEYWAY_TEST_SHARDED") != null;
    static final Map<String, Body> CHECKS = new LinkedHashMap<>();
    static String url;
    static String user;
    static String password;
    static String current = "start";

    public static void main(String[] args) throws Exception {
        URI given = URI.create(args[0]);
        String[] owner = given.getUserInfo().split(":", 2);
        user = owner[0];
        password = owner[1];
        url = "jdbc:postgresql://" + given.getHost() + ":" + given.getPort() + given.getPath();
        register();
        int failed = 0;
        ExecutorService one = Executors.newCachedThreadPool();
        for (Map.Entry<String, Body> entry : CHECKS.entrySet()) {
            current = entry.getKey();
            Future<?> future = one.submit(() -> {
                entry.getValue().run();
                return null;
            });
            try {
                future.get(40, TimeUnit.SECONDS);
                System.out.println("ok " + current);
            } catch (ExecutionException | TimeoutException error) {
                failed++;
                Throwable cause = error.getCause() == null ? error : error.getCause();
                String line = "";
                for (StackTraceElement frame : cause.getStackTrace()) {
                    if (frame.getClassName().startsWith("JdbcChecks")) {
                        line = " (line " + frame.getLineNumber() + ")";
                        break;
                    }
                }
                String text = String.valueOf(cause).replaceAll("\\s+", " ");
                System.out.println("FAIL " + current + ": " + text + line);
            }
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    static void see(Object value) {
        System.out.println("see " + current + ": " + value);
    }

    static void equal(Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError("is " + got + ", expected " + wanted);
        }
    }

    static Connection connect(String... options) throws SQLException {
        Properties all = new Properties();
        all.setProperty("user", user);
        all.setProperty("password", password);
        all.setProperty("loginTimeout", "10");
        for (int i = 0; i + 1 < options.length; i += 2) {
            all.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection(url, all);
    }

    static void execute(Connection c, String... statements) throws SQLException {
        try (Statement s = c.createStatement()) {
            for (String sql : statements) {
                s.execute(sql);
            }
        }
    }

    static String rows(ResultSet rows) throws SQLException {
        StringBuilder out = new StringBuilder();
        int columns = rows.getMetaData().getColumnCount();
        while (rows.next()) {
            for (int i = 1; i <= columns; i++) {
                out.append(i == 1 ? "" : "|").append(rows.getString(i));
            }
            out.append("; ");
        }
        return out.toString();
    }

    static String query(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                s.setObject(i + 1, values[i]);
            }
            return rows(s.executeQuery());
        }
    }

    static SQLException fails(String state, Body body) throws Exception {
        try {
            body.run();
        } catch (SQLException error) {
            if (!state.equals(error.getSQLState())) {
                throw new AssertionError(state + " expected, is " + error.getSQLState() + ": " + error.getMessage());
            }
            return error;
        }
        throw new AssertionError("no error, expected " + state);
    }

    static final long[] TENANTS = {1, 2, 3, 4, 5, 6, 7, 8};

    static void register() {
        CHECKS.put("schema_is_made", JdbcChecks::schema);
        CHECKS.put("named_statements_serve_every_tenant", JdbcChecks::named);
        CHECKS.put("modes_of_the_driver_see_the_same", JdbcChecks::modes);
        CHECKS.put("batches_go_in_whole", JdbcChecks::batches);
        CHECKS.put("generated_keys_come_back", JdbcChecks::generated);
        CHECKS.put("types_in_and_out", JdbcChecks::types);
        CHECKS.put("transactions_and_savepoints", JdbcChecks::transactions);
        CHECKS.put("autosave_saves_the_transaction", JdbcChecks::autosave);
        CHECKS.put("cursors_with_a_fetch_size", JdbcChecks::cursors);
        CHECKS.put("result_sets_that_update", JdbcChecks::updatable);
        CHECKS.put("pool_with_more_workers_than_connections", JdbcChecks::pool);
        CHECKS.put("timeouts_and_cancel", JdbcChecks::cancel);
        CHECKS.put("metadata_of_the_schema", JdbcChecks::metadata);
        CHECKS.put("copy_both_ways", JdbcChecks::copy);
        CHECKS.put("reads_over_many_tenants", JdbcChecks::many);
        CHECKS.put("cached_statement_after_ddl", JdbcChecks::ddl);
        CHECKS.put("rows_stay_for_who_counts_them", JdbcChecks::leave);
        if (SHARDED) {
            CHECKS.put("what_spans_tenants_has_a_state_and_a_hint", JdbcChecks::refusals);
        } else {
            CHECKS.put("functions_are_called", JdbcChecks::calls);
            CHECKS.put("large_objects_by_function_call", JdbcChecks::largeObjects);
            CHECKS.put("notifications_arrive", JdbcChecks::notifications);
            CHECKS.put("settings_stay_with_the_connection", JdbcChecks::settings);
        }
    }

    static void schema() throws Exception {
        try (Connection c = connect()) {
            execute(c, "DROP SCHEMA IF EXISTS jd CASCADE", "CREATE SCHEMA jd",
                "CREATE TABLE jd.plans (code text PRIMARY KEY, title text NOT NULL)",
                "CREATE TABLE jd.projects (tenant_id bigint NOT NULL, id bigint GENERATED BY DEFAULT AS IDENTITY,"
                    + " name text NOT NULL, budget numeric(12,2), tags text[], details jsonb, ref uuid,"
                    + " created timestamptz, photo bytea, PRIMARY KEY (tenant_id, id))",
                "CREATE TABLE jd.tasks (tenant_id bigint NOT NULL, id bigint NOT NULL, project_id bigint NOT NULL,"
                    + " title text, done boolean NOT NULL DEFAULT false, PRIMARY KEY (tenant_id, id),"
                    + " FOREIGN KEY (tenant_id, project_id) REFERENCES jd.projects)",
                "CREATE INDEX tasks_by_project ON jd.tasks (tenant_id, project_id)",
                "COMMENT ON TABLE jd.tasks IS 'things; to do'");
            for (long tenant : TENANTS) {
                query(c, "INSERT INTO jd.projects (tenant_id, id, name, budget) VALUES (?, 1, ?, ?) RETURNING id",
                    tenant, "project of " + tenant, new BigDecimal("100.50"));
            }
        }
    }

    static void named() throws Exception {
        for (String threshold : new String[] {"1", "5", "-1"}) {
            try (Connection c = connect("prepareThreshold", threshold)) {
                String sql = "SELECT id, name, budget FROM jd.projects WHERE tenant_id = ? AND id = ?";
                try (PreparedStatement s = c.prepareStatement(sql)) {
                    for (int turn = 0; turn < 3; turn++) {
                        for (long tenant : TENANTS) {
                            s.setLong(1, tenant);
                            s.setInt(2, 1);
                            equal(rows(s.executeQuery()), "1|project of " + tenant + "|100.50; ");
                        }
                    }
                    see(threshold + " " + s.getMetaData().getColumnTypeName(3) + " " + s.getParameterMetaData().getParameterTypeName(1));
                }
            }
        }
    }

    static void modes() throws Exception {
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection c = connect("preferQueryMode", mode, "prepareThreshold", "2")) {
                for (int turn = 0; turn < 4; turn++) {
                    for (long tenant : TENANTS) {
                        see(mode + " " + query(c, "SELECT name FROM jd.projects WHERE tenant_id = ? AND name LIKE ?", tenant, "p%"));
                    }
                    try (Statement s = c.createStatement()) {
                        see(mode + " " + rows(s.executeQuery("SELECT 1 AS a, 'x''y' AS b")));
                        boolean more = s.execute("SELECT 1; SELECT 2");
                        int sets = 0;
                        while (more) {
                            sets++;
                            more = s.getMoreResults();
                        }
                        see(mode + " " + sets);
                    }
                }
            }
        }
    }

    static void batches() throws Exception {
        for (String rewrite : new String[] {"false", "true"}) {
            try (Connection c = connect("reWriteBatchedInserts", rewrite)) {
                for (boolean auto : new boolean[] {true, false}) {
                    long tenant = 2 + (auto ? 1 : 0);
                    c.setAutoCommit(auto);
                    String sql = "INSERT INTO jd.tasks (tenant_id, id, project_id, title) VALUES (?, ?, ?, ?)";
                    try (PreparedStatement s = c.prepareStatement(sql)) {
                        for (int n = 0; n < 300; n++) {
                            s.setLong(1, tenant);
                            s.setLong(2, n);
                            s.setLong(3, 1);
                            s.setString(4, "task " + n);
                            s.addBatch();
                        }
                        int[] counts = s.executeBatch();
                        see(rewrite + " " + auto + " " + counts.length + " " + counts[0]);
                    }
                    if (!auto) {
                        c.commit();
                    }
                    equal(query(c, "SELECT count(*), max(title) FROM jd.tasks WHERE tenant_id = ?", tenant), "300|task 99; ");
                    // One that fails takes the rest of its batch with it.
                    try (PreparedStatement s = c.prepareStatement(sql)) {
                        for (long id : new long[] {1000, 1001, 5, 1002}) {
                            s.setLong(1, tenant);
                            s.setLong(2, id);
                            s.setLong(3, 1);
                            s.setString(4, "more");
                            s.addBatch();
                        }
                        s.executeBatch();
                        throw new AssertionError("no error");
                    } catch (BatchUpdateException error) {
                        see(rewrite + " " + error.getSQLState() + " " + Arrays.toString(error.getUpdateCounts()));
                    }
                    if (!auto) {
                        c.rollback();
                    }
                    see(query(c, "SELECT count(*) FROM jd.tasks WHERE tenant_id = ?", tenant));
                    query(c, "WITH gone AS (DELETE FROM jd.tasks WHERE tenant_id = ? RETURNING 1) SELECT count(*) FROM gone", tenant);
                    if (!auto) {
                        c.commit();
                    }
                }
            }
        }
    }

    static void generated() throws Exception {
        try (Connection c = connect()) {
            for (long tenant : new long[] {5, 6}) {
                String sql = "INSERT INTO jd.projects (tenant_id, id, name) VALUES (?, ?, ?)";
                try (PreparedStatement s = c.prepareStatement(sql, new String[] {"id", "name"})) {
                    s.setLong(1, tenant);
                    s.setLong(2, 50);
                    s.setString(3, "keyed");
                    equal(s.executeUpdate(), 1);
                    equal(rows(s.getGeneratedKeys()), "50|keyed; ");
                }
                try (PreparedStatement s = c.prepareStatement(sql, Statement.RETURN_GENERATED_KEYS)) {
                    s.setLong(1, tenant);
                    s.setLong(2, 51);
                    s.setString(3, "all");
                    s.executeUpdate();
                    ResultSet keys = s.getGeneratedKeys();
                    equal(keys.next(), true);
                    equal(keys.getLong("id"), 51L);
                }
                try (PreparedStatement s = c.prepareStatement("DELETE FROM jd.projects WHERE tenant_id = ? AND id >= 50")) {
                    s.setLong(1, tenant);
                    equal(s.executeUpdate(), 2);
                }
            }
        }
    }

    static void types() throws Exception {
        for (String binary : new String[] {"false", "true"}) {
            try (Connection c = connect("binaryTransfer", binary, "prepareThreshold", "-1")) {
                String sql = "UPDATE jd.projects SET budget = ?, tags = ?, details = ?, ref = ?, created = ?, photo = ?"
                    + " WHERE tenant_id = ? AND id = 1";
                PGobject json = new PGobject();
                json.setType("jsonb");
                json.setValue("{\"a\": [1, 2, null], \"q\": \"it's\"}");
                try (PreparedStatement s = c.prepareStatement(sql)) {
                    s.setBigDecimal(1, new BigDecimal("1234567.89"));
                    s.setArray(2, c.createArrayOf("text", new String[] {"a", null, "c,\"d"}));
                    s.setObject(3, json);
                    s.setObject(4, UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
                    s.setObject(5, OffsetDateTime.parse("2026-02-03T04:05:06.789+02:00"));
                    s.setBytes(6, new byte[] {0, -1, 39, 92});
                    s.setLong(7, 7);
                    equal(s.executeUpdate(), 1);
                }
                String read = "SELECT budget, tags, details, ref, created, photo FROM jd.projects WHERE tenant_id = ? AND id = 1";
                try (PreparedStatement s = c.prepareStatement(read)) {
                    s.setLong(1, 7);
                    ResultSet r = s.executeQuery();
                    r.next();
                    see(r.getBigDecimal(1) + " " + Arrays.toString((String[]) r.getArray(2).getArray()) + " " + r.getObject(3) + " "
                        + r.getObject(4, UUID.class) + " " + r.getObject(5, OffsetDateTime.class) + " " + Arrays.toString(r.getBytes(6)));
                }
                see(query(c, "SELECT ?::int4, ?::text, ?::date, ?::bool", 5, null, java.sql.Date.valueOf("2026-01-01"), true));
                // A key that the driver sends as another type than the column's.
                for (Object key : new Object[] {7, 7L, (short) 7}) {
                    see(query(c, "SELECT count(*) FROM jd.projects WHERE tenant_id = ?", key));
                }
            }
        }
    }

    static void transactions() throws Exception {
        try (Connection c = connect()) {
            int[] levels = {Connection.TRANSACTION_READ_COMMITTED, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE};
            for (int level : levels) {
                c.setTransactionIsolation(level);
                c.setAutoCommit(false);
                for (long tenant : TENANTS) {
                    query(c, "UPDATE jd.projects SET name = ? WHERE tenant_id = ? RETURNING id", "renamed", tenant);
                    Savepoint s = c.setSavepoint("a_point");
                    fails("22012", () -> query(c, "SELECT 1 / (id - 1) FROM jd.projects WHERE tenant_id = ?", tenant));
                    fails("25P02", () -> query(c, "SELECT 1"));
                    c.rollback(s);
                    c.releaseSavepoint(s);
                    equal(query(c, "SELECT name FROM jd.projects WHERE tenant_id = ?", tenant), "renamed; ");
                    see(query(c, "SHOW transaction_isolation"));
                    c.rollback();
                    equal(query(c, "SELECT name FROM jd.projects WHERE tenant_id = ?", tenant), "project of " + tenant + "; ");
                    c.commit();
                }
                c.setAutoCommit(true);
            }
            c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            c.setReadOnly(true);
            c.setAutoCommit(false);
            fails("25006", () -> query(c, "UPDATE jd.projects SET name = 'x' WHERE tenant_id = 1 RETURNING 1"));
            c.rollback();
            c.setAutoCommit(true);
            c.setReadOnly(false);
            equal(c.isValid(5), true);
            see(c.getSchema());
        }
    }

    static void autosave() throws Exception {
        try (Connection c = connect("autosave", "always", "cleanupSavepoints", "true", "prepareThreshold", "1")) {
            c.setAutoCommit(false);
            for (long tenant : new long[] {1, 2, 3, 4}) {
                query(c, "SELECT name FROM jd.projects WHERE tenant_id = ?", tenant);
                fails("23505", () -> query(c, "INSERT INTO jd.projects (tenant_id, id, name) VALUES (?, 1, 'x') RETURNING id", tenant));
                see(query(c, "SELECT count(*) FROM jd.projects WHERE tenant_id = ?", tenant));
                c.commit();
            }
        }
    }

    static void cursors() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            for (long tenant : new long[] {1, 2}) {
                try (PreparedStatement s = c.prepareStatement("INSERT INTO jd.tasks (tenant_id, id, project_id, title)"
                        + " SELECT ?, n, 1, 'row ' || n FROM generate_series(1, 250) n")) {
                    s.setLong(1, tenant);
                    see(s.executeUpdate());
                } catch (SQLException error) {
                    if (!SHARDED) {
                        throw error;
                    }
                    see(error.getSQLState());
                }
                c.rollback();
                try (PreparedStatement s = c.prepareStatement("INSERT INTO jd.tasks (tenant_id, id, project_id, title) VALUES (?, ?, 1, 'row')")) {
                    for (int n = 0; n < 250; n++) {
                        s.setLong(1, tenant);
                        s.setLong(2, n);
                        s.addBatch();
                    }
                    s.executeBatch();
                }
                try (PreparedStatement s = c.prepareStatement("SELECT id FROM jd.tasks WHERE tenant_id = ? ORDER BY id")) {
                    s.setFetchSize(40);
                    s.setLong(1, tenant);
                    try (ResultSet r = s.executeQuery()) {
                        long sum = 0;
                        int count = 0;
                        while (r.next()) {
                            sum += r.getLong(1);
                            if (count++ == 50) {
                                // Between two fetches of the portal.
                                equal(query(c, "SELECT count(*) FROM jd.projects WHERE tenant_id = ?", tenant), "1; ");
                            }
                        }
                        equal(sum, 31125L);
                    }
                    s.setMaxRows(10);
                    equal(rows(s.executeQuery()).split(";").length, 11);
                }
                c.rollback();
            }
        }
    }

    static void updatable() throws Exception {
        try (Connection c = connect()) {
            for (long tenant : new long[] {1, 2}) {
                c.setAutoCommit(false);
                try (PreparedStatement s = c.prepareStatement("SELECT tenant_id, id, name FROM jd.projects WHERE tenant_id = ?",
                        ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                    s.setLong(1, tenant);
                    ResultSet r = s.executeQuery();
                    r.last();
                    see(r.getRow());
                    r.updateString("name", "by the result set");
                    r.updateRow();
                    r.refreshRow();
                    see(r.getString("name"));
                }
                c.rollback();
                c.setAutoCommit(true);
            }
        }
    }

    static void pool() throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url);
        config.setUsername(user);
        config.setPassword(password);
        config.setMaximumPoolSize(4);
        config.setMinimumIdle(1);
        config.setConnectionTestQuery("SELECT 1");
        config.setConnectionInitSql("SET application_name = 'hikari'");
        config.setTransactionIsolation("TRANSACTION_READ_COMMITTED");
        try (HikariDataSource pool = new HikariDataSource(config)) {
            ExecutorService workers = Executors.newFixedThreadPool(8);
            List<Future<Integer>> all = new ArrayList<>();
            for (int worker = 0; worker < 8; worker++) {
                long tenant = TENANTS[worker];
                all.add(workers.submit(() -> {
                    int done = 0;
                    for (int n = 0; n < 25; n++) {
                        try (Connection c = pool.getConnection()) {
                            c.setAutoCommit(n % 2 == 0);
                            c.setReadOnly(n % 3 == 0);
                            equal(query(c, "SELECT count(*) FROM jd.projects WHERE tenant_id = ?", tenant), "1; ");
                            equal(query(c, "SHOW application_name"), "hikari; ");
                            if (n % 3 != 0) {
                                query(c, "UPDATE jd.projects SET budget = budget WHERE tenant_id = ? RETURNING id", tenant);
                            }
                            if (n % 2 == 1) {
                                c.commit();
                            }
                            done++;
                        }
                    }
                    return done;
                }));
            }
            for (Future<Integer> one : all) {
                equal(one.get(), 25);
            }
            workers.shutdown();
        }
    }

    static void cancel() throws Exception {
        try (Connection c = connect()) {
            for (long tenant : new long[] {2}) {
                try (PreparedStatement s = c.prepareStatement("SELECT pg_sleep(20) FROM jd.projects WHERE tenant_id = ?")) {
                    s.setLong(1, tenant);
                    s.setQueryTimeout(1);
                    fails("57014", s::executeQuery);
                }
                equal(query(c, "SELECT 1"), "1; ");
            }
        }
    }

    static void metadata() throws Exception {
        try (Connection c = connect()) {
            DatabaseMetaData m = c.getMetaData();
            see(m.getDatabaseProductName() + " " + m.getDatabaseProductVersion() + " " + m.getUserName());
            see(rows(m.getTables(null, "jd", "%", new String[] {"TABLE"})));
            see(rows(m.getColumns(null, "jd", "%", "%")));
            see(rows(m.getPrimaryKeys(null, "jd", "tasks")));
            see(rows(m.getImportedKeys(null, "jd", "tasks")));
            see(rows(m.getExportedKeys(null, "jd", "projects")));
            see(rows(m.getCrossReference(null, "jd", "projects", null, "jd", "tasks")));
            see(rows(m.getIndexInfo(null, "jd", "tasks", false, false)));
            see(rows(m.getTypeInfo()).length() > 1000);
            see(rows(m.getTablePrivileges(null, "jd", "tasks")));
            see(rows(m.getColumnPrivileges(null, "jd", "tasks", "id")));
            see(rows(m.getSchemas(null, "jd")));
            see(rows(m.getFunctions(null, "pg_catalog", "array_app%")));
            see(rows(m.getProcedureColumns(null, "pg_catalog", "array_append", "%")));
            see(rows(m.getBestRowIdentifier(null, "jd", "tasks", DatabaseMetaData.bestRowSession, true)));
            see(m.getMaxConnections() > 0);
            see(m.getSQLKeywords().length() > 10);
        }
    }

    static void copy() throws Exception {
        try (Connection c = connect()) {
            CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 500; n++) {
                lines.append("code").append(n).append("\ttitle\n");
            }
            // On shards, rows by key go in one by one; a copy of a query goes out.
            if (!SHARDED) {
                see(copies.copyIn("COPY jd.plans FROM STDIN", new StringReader(lines.toString())));
                see(copies.copyIn("COPY jd.tasks (tenant_id, id, project_id) FROM STDIN (FORMAT csv)", new StringReader("1,900,1\n2,900,1\n")));
                StringWriter out = new StringWriter();
                see(copies.copyOut("COPY (SELECT code FROM jd.plans ORDER BY code) TO STDOUT", out));
                see(out.toString().hashCode());
                fails("22P02", () -> copies.copyIn("COPY jd.tasks FROM STDIN", new StringReader("x\ty\n")));
                execute(c, "DELETE FROM jd.plans", "DELETE FROM jd.tasks");
            }
            for (long tenant : new long[] {1, 2}) {
                StringWriter out = new StringWriter();
                see(copies.copyOut("COPY (SELECT id, name FROM jd.projects WHERE tenant_id = " + tenant + ") TO STDOUT", out) + out.toString());
            }
        }
    }

    static void many() throws Exception {
        try (Connection c = connect("prepareThreshold", "2")) {
            for (int turn = 0; turn < 4; turn++) {
                see(query(c, "SELECT tenant_id, name FROM jd.projects ORDER BY tenant_id LIMIT ?", 5));
                see(query(c, "SELECT tenant_id, count(*), sum(budget) FROM jd.projects GROUP BY tenant_id ORDER BY tenant_id"));
                see(query(c, "SELECT tenant_id FROM jd.projects WHERE tenant_id = ANY (?) ORDER BY 1", (Object) c.createArrayOf("bigint", new Long[] {1L, 2L, 5L})));
                see(query(c, "SELECT tenant_id, id FROM jd.projects WHERE tenant_id IN (?, ?, ?) ORDER BY 1 DESC", 3L, 1L, 8L));
            }
            c.setAutoCommit(false);
            see(query(c, "SELECT tenant_id FROM jd.projects ORDER BY tenant_id"));
            c.commit();
        }
    }

    static void ddl() throws Exception {
        try (Connection c = connect("prepareThreshold", "1", "autosave", "conservative"); Connection other = connect()) {
            String sql = "SELECT * FROM jd.projects WHERE tenant_id = ?";
            try (PreparedStatement s = c.prepareStatement(sql)) {
                for (int turn = 0; turn < 3; turn++) {
                    for (long tenant : new long[] {1, 2}) {
                        s.setLong(1, tenant);
                        ResultSet r = s.executeQuery();
                        see(r.getMetaData().getColumnCount() + " " + r.next());
                    }
                    execute(other, "ALTER TABLE jd.projects ADD COLUMN extra" + turn + " int DEFAULT 5");
                }
            }
            for (int turn = 0; turn < 3; turn++) {
                execute(other, "ALTER TABLE jd.projects DROP COLUMN extra" + turn);
            }
        }
    }

    static void leave() throws Exception {
        try (Connection c = connect(); PreparedStatement s = c.prepareStatement(
                "INSERT INTO jd.tasks (tenant_id, id, project_id) VALUES (?, 1, 1) ON CONFLICT (tenant_id, id) DO UPDATE SET done = true")) {
            for (int turn = 0; turn < 2; turn++) {
                for (long tenant : TENANTS) {
                    for (int n = 0; n < 3; n++) {
                        s.setLong(1, tenant);
                        s.addBatch();
                    }
                    see(Arrays.toString(s.executeBatch()));
                }
            }
        }
    }

    static void refusals() throws Exception {
        try (Connection c = connect()) {
            equal(query(c, "SELECT 1"), "1; ");
            for (long[] pair : new long[][] {{1, 2}}) {
                c.setAutoCommit(false);
                query(c, "UPDATE jd.projects SET name = name WHERE tenant_id = ? RETURNING 1", pair[0]);
                try {
                    query(c, "UPDATE jd.projects SET name = name WHERE tenant_id = ? RETURNING 1", pair[1]);
                } catch (SQLException error) {
                    equal(error.getSQLState(), "0A000");
                }
                c.rollback();
                c.setAutoCommit(true);
            }
        }
    }

    static void calls() throws Exception {
        try (Connection c = connect()) {
            execute(c, "CREATE OR REPLACE FUNCTION jd.twice(n int, OUT twice int, OUT words text) LANGUAGE sql AS $$ SELECT n * 2, 'a' $$",
                "CREATE OR REPLACE PROCEDURE jd.nothing(n int) LANGUAGE plpgsql AS $$ BEGIN PERFORM n; END $$");
            try (CallableStatement s = c.prepareCall("{call jd.twice(?, ?, ?)}")) {
                s.setInt(1, 21);
                s.registerOutParameter(2, Types.INTEGER);
                s.registerOutParameter(3, Types.VARCHAR);
                s.execute();
                equal(s.getInt(2), 42);
            }
            try (CallableStatement s = c.prepareCall("{? = call upper(?)}")) {
                s.registerOutParameter(1, Types.VARCHAR);
                s.setString(2, "loud");
                s.execute();
                equal(s.getString(1), "LOUD");
            }
            execute(c, "CALL jd.nothing(1)");
        }
    }

    static void largeObjects() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            LargeObjectManager all = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = all.createLO(LargeObjectManager.READWRITE);
            LargeObject object = all.open(oid, LargeObjectManager.WRITE);
            byte[] part = new byte[5000];
            Arrays.fill(part, (byte) 7);
            for (int n = 0; n < 10; n++) {
                object.write(part);
            }
            object.close();
            object = all.open(oid, LargeObjectManager.READ);
            see(object.size() + " " + object.read(60000).length);
            object.close();
            all.delete(oid);
            c.commit();
            fails("42704", () -> all.open(oid, LargeObjectManager.READ));
            c.rollback();
        }
    }

    static void notifications() throws Exception {
        try (Connection c = connect(); Connection other = connect()) {
            execute(c, "LISTEN jd_news");
            execute(other, "NOTIFY jd_news, 'hello'");
            var all = c.unwrap(PGConnection.class).getNotifications(5000);
            see(all.length + " " + all[0].getName() + " " + all[0].getParameter());
            execute(c, "UNLISTEN *");
        }
    }

    static void settings() throws Exception {
        try (Connection c = connect("currentSchema", "jd,public", "options", "-c statement_timeout=9s"); Connection other = connect()) {
            for (int turn = 0; turn < 3; turn++) {
                see(query(c, "SHOW search_path") + query(c, "SHOW statement_timeout") + query(other, "SHOW search_path"));
                see(query(c, "SELECT count(*) FROM projects WHERE tenant_id = 1"));
            }
            c.setSchema("pg_catalog");
            see(query(c, "SHOW search_path"));
            c.setClientInfo("ApplicationName", "jdbc app");
            see(query(c, "SHOW application_name"));
            execute(c, "SET TIME ZONE 'Asia/Tokyo'");
            see(query(c, "SHOW timezone") + query(other, "SHOW timezone"));
        }
    }
}
