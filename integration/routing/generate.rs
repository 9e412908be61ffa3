//! Statements made by chance: joins, subqueries, common table expressions and
//! writes, most of which name a key somewhere.

/// A small generator of numbers, the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

/// Which columns the tables' keys have.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Keys {
    /// `tenant_id`.
    Column,
    /// `tenant_id` and `id`.
    Row,
}

/// One statement.
pub(crate) fn statement(dice: &mut Dice, keys: Keys) -> String {
    let mut maker = Maker { dice, next: 0, ctes: Vec::new(), keys };
    if maker.dice.one_in(6) { maker.write() } else { maker.query(3, &[]) }
}

struct Maker<'d> {
    dice: &'d mut Dice,
    next: usize,
    ctes: Vec<String>,
    keys: Keys,
}

impl Maker<'_> {
    fn name(&mut self) -> String {
        self.next += 1;
        format!("r{}", self.next)
    }

    fn key(&mut self) -> String {
        // Two of these keys are on one shard, so many lists are, too.
        self.dice
            .pick(&["42", "42", "42", "42", "'42'", "42::int8", "43", "-5", "7", "null"])
            .into()
    }

    /// A query whose columns are tenant_id, id and name.
    fn query(&mut self, depth: usize, outer: &[String]) -> String {
        let before = self.ctes.len();
        let mut with = String::new();
        if depth > 1 && self.dice.one_in(5) {
            let name = if self.dice.one_in(4) { "users".to_owned() } else { self.name() };
            let inner = self.query(depth - 1, &[]);
            let kind = self.dice.pick(&["", "", "materialized ", "not materialized "]);
            with = format!("with {name} as {kind}({inner}) ");
            self.ctes.push(name);
        }
        let body = self.body(depth, outer);
        self.ctes.truncate(before);
        format!("{with}{body}")
    }

    fn body(&mut self, depth: usize, outer: &[String]) -> String {
        if depth > 1 && self.dice.one_in(8) {
            let op = self.dice.pick(&["union all", "union", "except", "intersect", "except all"]);
            let (left, right) = (self.select(depth - 1, outer), self.select(depth - 1, outer));
            return format!("({left}) {op} ({right})");
        }
        self.select(depth, outer)
    }

    fn select(&mut self, depth: usize, outer: &[String]) -> String {
        let mut names = Vec::new();
        let from = self.from(depth, outer, &mut names);
        let mut seen = names.clone();
        seen.extend_from_slice(outer);
        let filter = self.filter(depth, &names, &seen);
        let one = names[self.dice.below(names.len())].clone();
        let other = names[self.dice.below(names.len())].clone();
        let items = match self.dice.below(14) {
            0 => format!("{one}.tenant_id, {other}.id, {one}.name"),
            1 => format!("{other}.id as tenant_id, {one}.tenant_id::int as id, {one}.name"),
            2 => {
                return format!(
                    "select {one}.tenant_id, max({other}.id) as id, min({other}.name) as name from {from}{filter} group by {one}.tenant_id"
                );
            }
            3 => {
                return format!(
                    "select max({one}.tenant_id) as tenant_id, count(*)::int as id, min({one}.name) as name from {from}{filter}"
                );
            }
            4 => {
                return format!(
                    "select {one}.tenant_id, {one}.id, {one}.name from {from}{filter} order by 1, 2, 3 limit 2"
                );
            }
            5 => format!(
                "{one}.tenant_id, (row_number() over (order by {one}.tenant_id, {one}.id, {other}.id, {other}.tenant_id))::int as id, {one}.name"
            ),
            6 => format!("distinct {one}.tenant_id, {one}.id, {one}.name"),
            7 => {
                return format!(
                    "select distinct on ({one}.id) {one}.tenant_id, {one}.id, {one}.name from {from}{filter} order by {one}.id, 1, 3"
                );
            }
            8 if depth > 1 => {
                let inner = self.select(depth - 1, &seen);
                format!(
                    "{one}.tenant_id, (select count(*)::int from ({inner}) q) as id, {one}.name"
                )
            }
            9 => format!("{}::int8 as tenant_id, {one}.id, {one}.name", self.key()),
            10 => {
                return format!(
                    "select {one}.tenant_id, {one}.id, {one}.name from {from}{filter} group by 1, 2, 3 having {}",
                    self.key_test(std::slice::from_ref(&one))
                );
            }
            11 if names.len() == 1 => format!("{one}.*"),
            12 if names.len() == 1 => "*".to_owned(),
            _ => format!("{one}.tenant_id, {one}.id, {one}.name"),
        };
        format!("select {items} from {from}{filter}")
    }

    fn from(&mut self, depth: usize, outer: &[String], names: &mut Vec<String>) -> String {
        let mut from = self.relation(depth, outer, names);
        while self.dice.one_in(2) && names.len() < 4 {
            let left = names.clone();
            let kind = self.dice.pick(&[
                "join",
                "join",
                "join",
                "left join",
                "left join",
                "right join",
                "full join",
                "cross join",
                ",",
            ]);
            if kind == "," || kind == "cross join" {
                from = format!("{from} {kind} {}", self.relation(depth, outer, names));
                continue;
            }
            let lateral: Vec<String> = if kind.contains("right") || kind.contains("full") {
                Vec::new()
            } else {
                left.clone()
            };
            let right = self.relation_beside(depth, outer, &lateral, names);
            let last = names[names.len() - 1].clone();
            let one = left[self.dice.below(left.len())].clone();
            let on = match self.dice.below(7) {
                0 | 1 if left.len() == 1 && self.keys == Keys::Row => {
                    self.dice.pick(&["using (tenant_id, id)", "using (id, tenant_id)"]).to_owned()
                }
                0 | 1 if left.len() == 1 => "using (tenant_id)".to_owned(),
                2 => format!("on {one}.id = {last}.id"),
                3 => format!("on ({one}.tenant_id, {one}.id) = ({last}.tenant_id, {last}.id)"),
                4 => {
                    let test = self.key_test(names);
                    format!("on {one}.tenant_id = {last}.tenant_id and {test}")
                }
                5 => format!("on {}", self.key_test(names)),
                _ => format!("on {one}.tenant_id = {last}.tenant_id"),
            };
            from = format!("{from} {kind} {right} {on}");
        }
        from
    }

    fn relation(&mut self, depth: usize, outer: &[String], names: &mut Vec<String>) -> String {
        self.relation_beside(depth, outer, &[], names)
    }

    fn relation_beside(
        &mut self,
        depth: usize,
        outer: &[String],
        beside: &[String],
        names: &mut Vec<String>,
    ) -> String {
        let name = self.name();
        names.push(name.clone());
        if depth > 1 && self.dice.one_in(3) {
            if !beside.is_empty() && self.dice.one_in(3) {
                let mut seen = outer.to_vec();
                seen.extend_from_slice(beside);
                return format!("lateral ({}) {name}", self.query(depth - 1, &seen));
            }
            let columns = self.dice.pick(&["", "", "(tenant_id, id, name)"]);
            return format!("({}) {name}{columns}", self.query(depth - 1, outer));
        }
        if !self.ctes.is_empty() && self.dice.one_in(2) {
            return format!("{} {name}", self.ctes[self.dice.below(self.ctes.len())]);
        }
        if self.dice.one_in(8) {
            return format!("plans {name}");
        }
        if self.dice.one_in(10) {
            let (one, two) = (self.key(), self.key());
            return format!(
                "(values ({one}::int8, 1, 'a'), ({two}::int8, 2, null)) {name}(tenant_id, id, name)"
            );
        }
        format!("{} {name}", self.dice.pick(&["users", "tasks", "comments"]))
    }

    fn filter(&mut self, depth: usize, names: &[String], seen: &[String]) -> String {
        let mut tests = Vec::new();
        for name in names {
            if !self.dice.one_in(3) {
                tests.push(self.key_test(std::slice::from_ref(name)));
            }
        }
        if self.dice.one_in(2) {
            tests.push(self.test(depth, seen));
        }
        if tests.is_empty() { String::new() } else { format!(" where {}", tests.join(" and ")) }
    }

    /// A test of a key.
    fn key_test(&mut self, names: &[String]) -> String {
        let test = self.first_test(names);
        if self.keys == Keys::Column || self.dice.one_in(4) {
            return test;
        }
        let one = names[self.dice.below(names.len())].clone();
        let other = names[self.dice.below(names.len())].clone();
        let (a, b) = (self.key(), self.key());
        match self.dice.below(10) {
            0 => format!("({one}.tenant_id, {one}.id) in (({a}, 1), ({b}, 2), ({a}, 3))"),
            1 => format!("({one}.id, {one}.tenant_id) = (2, {a})"),
            2 => format!("(({one}.id = 1 and {one}.tenant_id = {a}) or ({test} and {one}.id = 2))"),
            3 => format!("({one}.tenant_id, {one}.id) = ({other}.tenant_id, {other}.id)"),
            4 => format!("({test} and {one}.id in (1, 2))"),
            5 => format!("({one}.tenant_id, {one}.id) in (values ({a}::int8, 1), ({b}::int8, 2))"),
            _ => format!("({test} and {one}.id = 1)"),
        }
    }

    /// A test of a key's first column.
    fn first_test(&mut self, names: &[String]) -> String {
        let one = names[self.dice.below(names.len())].clone();
        let other = names[self.dice.below(names.len())].clone();
        let (a, b) = (self.key(), self.key());
        match self.dice.below(16) {
            0 => format!("{one}.tenant_id in ({a}, {b})"),
            1 => format!("{one}.tenant_id = any (array[{a}, {b}]::int8[])"),
            2 => format!("{one}.tenant_id = any ('{{42,null}}')"),
            3 => format!("({one}.tenant_id = {a} or {one}.tenant_id = {b})"),
            4 => format!("({one}.tenant_id, {one}.id) in (({a}, 1), ({b}, 2))"),
            5 => format!("({one}.tenant_id, {one}.id) = ({a}, 1)"),
            6 => format!(
                "(({one}.tenant_id = {a} and {one}.name = 'a') or ({one}.tenant_id = {b} and {other}.id = 1))"
            ),
            7 => format!("{one}.tenant_id = {other}.tenant_id"),
            8 => format!("{a} = {one}.tenant_id"),
            9 => format!("({one}.tenant_id = {a} and {other}.tenant_id = {b})"),
            _ => format!("{one}.tenant_id = {a}"),
        }
    }

    /// Any test.
    fn test(&mut self, depth: usize, names: &[String]) -> String {
        let one = names[self.dice.below(names.len())].clone();
        let other = names[self.dice.below(names.len())].clone();
        match self.dice.below(16) {
            0 => format!("not ({})", self.key_test(names)),
            1 => format!("({}) is not true", self.key_test(names)),
            2 => format!("({} or {})", self.key_test(names), self.test(depth, names)),
            3 => format!("({} and {})", self.key_test(names), self.test(depth, names)),
            4 => format!("{one}.name = {other}.name"),
            5 => format!("{one}.tenant_id is not distinct from {}::int8", self.key()),
            6 => format!("coalesce({}, true)", self.key_test(names)),
            7 => format!(
                "case when {} then {} else true end",
                self.key_test(names),
                self.key_test(names)
            ),
            8 | 9 if depth > 1 => {
                let not = self.dice.pick(&["", "not "]);
                format!("{not}exists ({})", self.query(depth - 1, names))
            }
            10 | 11 if depth > 1 => {
                let not = self.dice.pick(&["", "", "not "]);
                let inner = self.query(depth - 1, names);
                format!("{one}.tenant_id {not}in (select q.tenant_id from ({inner}) q)")
            }
            12 if depth > 1 => {
                let inner = self.query(depth - 1, names);
                format!("({one}.tenant_id, {one}.id) in ({inner})")
                    .replace("({inner})", &format!("(select q.tenant_id, q.id from ({inner}) q)"))
            }
            13 if depth > 1 => {
                let inner = self.query(depth - 1, names);
                format!("{one}.id = (select max(q.id) from ({inner}) q)")
            }
            _ => format!("{one}.id = {other}.id"),
        }
    }

    fn write(&mut self) -> String {
        let target = self.dice.pick(&["users", "tasks"]);
        let from = self.name();
        let key = self.key();
        let names = ["t".to_owned(), from.clone()];
        let alone = ["t".to_owned()];
        match self.dice.below(8) {
            0 => format!(
                "update {target} t set name = 'x' where {} and {}",
                self.key_test(&alone),
                self.test(2, &alone)
            ),
            1 => {
                let mut list = Vec::new();
                let source = self.relation(2, &[], &mut list);
                let names = ["t".to_owned(), list[0].clone()];
                format!(
                    "update {target} t set name = 'x' from {source} where {} and {} and {}",
                    self.key_test(&names),
                    self.key_test(&names),
                    self.key_test(&alone)
                )
            }
            2 => {
                let mut list = Vec::new();
                let source = self.relation(2, &[], &mut list);
                let names = ["t".to_owned(), list[0].clone()];
                format!(
                    "delete from {target} t using {source} where {} and {} and {}",
                    self.key_test(&names),
                    self.key_test(&names),
                    self.key_test(&alone)
                )
            }
            3 => format!(
                "delete from {target} t where {} and {}",
                self.key_test(&alone),
                self.test(2, &alone)
            ),
            4 => {
                let inner = self.query(2, &[]);
                format!(
                    "insert into comments (tenant_id, id, name) select q.tenant_id, q.id + 100, q.name from ({inner}) q on conflict do nothing"
                )
            }
            5 => {
                let other = self.key();
                format!(
                    "insert into comments (tenant_id, id, name) values ({key}, 50, 'x'), ({other}, 51, 'y') on conflict (tenant_id, id) do update set tenant_id = excluded.tenant_id"
                )
            }
            6 => self.merge(target),
            _ => {
                let inner = self.query(2, &[]);
                let test = self.key_test(&names);
                format!(
                    "with d as (delete from {target} t where {} returning *) select {from}.tenant_id, {from}.id, t.name from ({inner}) {from}, d t where {test}",
                    self.key_test(&alone)
                )
            }
        }
    }

    fn merge(&mut self, target: &str) -> String {
        let inner = self.query(2, &[]);
        let inserted = self.dice.pick(&["s.tenant_id", "s.tenant_id", "42"]);
        let clause = self.dice.pick(&[
            "when matched then delete",
            "when matched then update set name = s.name",
            "when not matched by source then delete",
            "when matched and t.id = 1 then update set name = 'm'",
        ]);
        let test = self.key_test(&["t".to_owned(), "s".to_owned()]);
        format!(
            "merge into {target} t using (select distinct on (tenant_id) * from ({inner}) q order by tenant_id, id, name) s on t.tenant_id = s.tenant_id and t.id = 1 and {test} {clause} when not matched then insert (tenant_id, id, name) values ({inserted}, coalesce(s.id, 0) + 200, s.name)"
        )
    }
}
