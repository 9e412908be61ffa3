//! Which values the key of each sharded relation can have, as far as the
//! statement's conditions tell.
//!
//! The proof: a sharded table of which only rows with keys in a set matter can be
//! replaced by those rows, wherever it is scanned. A set comes from a condition
//! that compares the key with constants; it passes to another key of the same
//! keyspace through an equality, into a subquery where taking rows away inside
//! means the same as taking them away outside, and out of a subquery through a
//! column that hands the key out. Through any other column it doesn't pass,
//! since another type's equality may be wider. NULL equals nothing, so it adds
//! nothing to a set.

use crate::sql::shape::{Branch, Column, Elements, Item, RelationKind, Shape, Test, Value};
use crate::sql::tree::Name;

use super::place::Sharded;
use super::template::{KeySource, Role};

/// The relations of a statement and what is known so far.
pub(super) struct Solver<'a> {
    pub(super) shape: &'a Shape,
    pub(super) sharded: Vec<Sharded<'a>>,
    /// Functions may do anything: subqueries stay as they are.
    pub(super) opaque: bool,
    /// `unnest` is the server's own.
    pub(super) unnests: bool,
}

/// A column that holds a key, or may hand one out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// The key of the sharded relation with this index.
    Key(usize),
    /// A column of a subquery.
    Output { level: usize, relation: usize, output: usize, column: Place },
}

/// A column of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Named(Name),
    At(usize),
}

/// A value that a column can have.
#[derive(Clone, Debug)]
pub(super) enum Member {
    Source(KeySource),
    Value(Value),
    Array(Value),
}

/// What a branch's column is.
enum Cell<'a> {
    Spot(Spot),
    Values(Vec<&'a Value>),
    /// The elements of an array in one value.
    Within(&'a Value),
}

impl<'a> Solver<'a> {
    /// Lets values flow until nothing changes.
    pub(super) fn solve(&mut self) {
        let shape = self.shape;
        let mut changed = true;
        while changed {
            changed = false;
            for (level, content) in shape.levels.iter().enumerate() {
                for condition in &content.conditions {
                    let mut spots = Vec::new();
                    self.spots(&condition.test, level, &mut spots);
                    for spot in spots {
                        if !self.is_restricted(&spot, level, condition.restricts) {
                            continue;
                        }
                        if let Some(members) = self.constraint(&condition.test, &spot, level) {
                            changed |= self.push(&spot, &members, 0);
                        }
                    }
                }
            }
        }
    }

    /// Finds what the keys of tables by range lie between, where no values are
    /// known; passes it on through equalities.
    pub(super) fn solve_intervals(&mut self) {
        let shape = self.shape;
        let mut changed = self.sharded.iter().any(|one| one.ranged && one.members.is_none());
        while changed {
            changed = false;
            for (level, content) in shape.levels.iter().enumerate() {
                for condition in &content.conditions {
                    for at in 0..self.sharded.len() {
                        let spot = Spot::Key(at);
                        if self.is_open(&spot)
                            && self.is_restricted(&spot, level, condition.restricts)
                        {
                            changed |= self.narrow(&condition.test, &spot, at, level);
                        }
                    }
                }
            }
        }
    }

    /// Narrows the interval of the key at `at` by `test`.
    fn narrow(&mut self, test: &Test, spot: &Spot, at: usize, level: usize) -> bool {
        match test {
            Test::All(list) => {
                list.iter().fold(false, |done, one| self.narrow(one, spot, at, level) | done)
            }
            Test::Compare(column, comparison, value)
                if self.resolve(column, level).as_ref() == Some(spot) =>
            {
                self.sharded.get_mut(at).is_some_and(|one| one.narrow(*comparison, value))
            }
            Test::Equal(left, right) => {
                let sides = [self.resolve(left, level), self.resolve(right, level)];
                let other = match &sides {
                    [Some(one), Some(Spot::Key(other))] if one == spot => *other,
                    [Some(Spot::Key(other)), Some(one)] if one == spot => *other,
                    _ => return false,
                };
                let Some(interval) = self.sharded.get(other).and_then(|one| one.interval.clone())
                else {
                    return false;
                };
                let Some(one) = self.sharded.get_mut(at) else { return false };
                if one.interval.is_some() || one.keyspace != interval.keyspace {
                    return false;
                }
                one.interval = Some(interval);
                true
            }
            Test::Compare(..)
            | Test::Among(..)
            | Test::AmongArray(..)
            | Test::Any(_)
            | Test::Unknown => false,
        }
    }

    /// How often each parameter stands opposite a key.
    pub(super) fn count_uses(&self, uses: &mut [u16]) {
        for (level, content) in self.shape.levels.iter().enumerate() {
            for condition in &content.conditions {
                self.count_in(&condition.test, level, uses);
            }
        }
    }

    fn count_in(&self, test: &Test, level: usize, uses: &mut [u16]) {
        match test {
            // A list has one type for all of its values: only among each other do
            // parameters get the column's.
            Test::Among(column, values) => {
                let params = values.len() == 1 || values.iter().all(is_bare_param);
                let key = self.resolve(column, level);
                if params && key.is_some_and(|spot| self.reaches_key(&spot, 0)) {
                    values.iter().for_each(|value| count(value, uses));
                }
            }
            Test::AmongArray(column, value) | Test::Compare(column, _, value) => {
                if self.resolve(column, level).is_some_and(|spot| self.reaches_key(&spot, 0)) {
                    count(value, uses);
                }
            }
            Test::All(list) | Test::Any(list) => {
                list.iter().for_each(|one| self.count_in(one, level, uses));
            }
            Test::Equal(..) | Test::Unknown => {}
        }
    }

    /// Whether the column's type is a key's.
    fn reaches_key(&self, spot: &Spot, depth: usize) -> bool {
        match spot {
            Spot::Key(_) => true,
            Spot::Output { output, column, .. } => {
                depth < DEPTH_MAX
                    && self.cells(*output, column).is_some_and(|cells| {
                        cells.iter().all(|cell| match cell {
                            Cell::Spot(inner) => self.reaches_key(inner, depth + 1),
                            Cell::Values(_) | Cell::Within(_) => false,
                        })
                    })
            }
        }
    }

    /// The columns that `test` is about, each once.
    fn spots(&self, test: &Test, level: usize, found: &mut Vec<Spot>) {
        let mut add = |column: &Column| {
            if let Some(spot) = self.resolve(column, level)
                && !found.contains(&spot)
                && self.is_open(&spot)
            {
                found.push(spot);
            }
        };
        match test {
            Test::Equal(left, right) => {
                add(left);
                add(right);
            }
            Test::Among(column, _) | Test::AmongArray(column, _) | Test::Compare(column, ..) => {
                add(column);
            }
            Test::All(list) | Test::Any(list) => {
                list.iter().for_each(|one| self.spots(one, level, found));
            }
            Test::Unknown => {}
        }
    }

    fn is_open(&self, spot: &Spot) -> bool {
        match spot {
            Spot::Key(at) => self.sharded.get(*at).is_some_and(|one| one.members.is_none()),
            Spot::Output { .. } => true,
        }
    }

    fn is_restricted(&self, spot: &Spot, level: usize, (from, to): (usize, usize)) -> bool {
        let (at, relation) = match spot {
            Spot::Key(at) => match self.sharded.get(*at) {
                Some(one) => (one.level, one.relation),
                None => return false,
            },
            Spot::Output { level, relation, .. } => (*level, *relation),
        };
        at == level && (from..to).contains(&relation)
    }

    /// The values that `spot` can have where `test` is true.
    pub(super) fn constraint(&self, test: &Test, spot: &Spot, level: usize) -> Option<Vec<Member>> {
        let is_it = |column: &Column| self.resolve(column, level).as_ref() == Some(spot);
        match test {
            Test::Equal(left, right) => {
                let other = match (is_it(left), is_it(right)) {
                    (true, false) => right,
                    (false, true) => left,
                    (true, true) | (false, false) => return None,
                };
                self.members(&self.resolve(other, level)?, 0)
            }
            Test::Among(column, values) => {
                is_it(column).then(|| values.iter().cloned().map(Member::Value).collect())
            }
            Test::AmongArray(column, value) => {
                is_it(column).then(|| vec![Member::Array(value.clone())])
            }
            Test::All(list) => list
                .iter()
                .filter_map(|one| self.constraint(one, spot, level))
                .filter(|members| self.fits(spot, members))
                .min_by_key(Vec::len),
            Test::Any(list) => {
                let mut all = Vec::new();
                for one in list {
                    all.extend(self.constraint(one, spot, level)?);
                }
                Some(all)
            }
            Test::Compare(..) | Test::Unknown => None,
        }
    }

    /// Whether the members are values of the spot's key.
    fn fits(&self, spot: &Spot, members: &[Member]) -> bool {
        match spot {
            Spot::Key(at) => self
                .sharded
                .get(*at)
                .is_some_and(|one| members.iter().all(|member| one.source(member).is_some())),
            Spot::Output { .. } => true,
        }
    }

    /// The values that a column can have, as far as they are known.
    pub(super) fn members(&self, spot: &Spot, depth: usize) -> Option<Vec<Member>> {
        match spot {
            Spot::Key(at) => {
                let sources = self.sharded.get(*at)?.members.as_ref()?;
                Some(sources.iter().cloned().map(Member::Source).collect())
            }
            Spot::Output { output, column, .. } => {
                if depth >= DEPTH_MAX {
                    return None;
                }
                self.output_members(*output, column, depth)
            }
        }
    }

    fn output_members(&self, output: usize, column: &Place, depth: usize) -> Option<Vec<Member>> {
        let mut all = Vec::new();
        for cell in self.cells(output, column)? {
            match cell {
                Cell::Spot(inner) => all.extend(self.members(&inner, depth + 1)?),
                Cell::Values(values) => all.extend(values.into_iter().cloned().map(Member::Value)),
                Cell::Within(array) => all.push(Member::Array(array.clone())),
            }
        }
        Some(all)
    }

    /// The values that the rows of a query hold at `position`, none of them
    /// NULL through an outer join.
    pub(super) fn row_members(&self, output: usize, position: usize) -> Option<Vec<KeyRow>> {
        let mut all = Vec::new();
        for cell in self.cells(output, &Place::At(position))? {
            match cell {
                Cell::Spot(inner) => all.extend(self.spot_rows(&inner)?),
                Cell::Values(values) => {
                    all.extend(values.into_iter().cloned().map(|v| (Member::Value(v), Role::Row)));
                }
                Cell::Within(array) => all.push((Member::Array(array.clone()), Role::Row)),
            }
        }
        Some(all)
    }

    /// The values of a column that rows are made of.
    pub(super) fn spot_rows(&self, spot: &Spot) -> Option<Vec<KeyRow>> {
        match spot {
            Spot::Key(at) => {
                let one = self.sharded.get(*at)?;
                let nullable = self.relation(one.level, one.relation)?.nullable;
                let members = self.members(spot, 0)?;
                let rows = members.into_iter().map(|member| (member, Role::Filter)).collect();
                (!nullable).then_some(rows)
            }
            Spot::Output { level, relation, output, column } => {
                if self.relation(*level, *relation)?.nullable {
                    return None;
                }
                let mut all = Vec::new();
                for cell in self.cells(*output, column)? {
                    match cell {
                        Cell::Spot(inner) => all.extend(self.spot_rows(&inner)?),
                        Cell::Values(values) => all.extend(
                            values.into_iter().cloned().map(|v| (Member::Value(v), Role::Row)),
                        ),
                        Cell::Within(array) => all.push((Member::Array(array.clone()), Role::Row)),
                    }
                }
                Some(all)
            }
        }
    }

    fn relation(&self, level: usize, relation: usize) -> Option<&'a crate::sql::shape::Relation> {
        self.shape.levels.get(level)?.relations.get(relation)
    }

    /// Restricts `spot` to `members`; whether something new is known.
    fn push(&mut self, spot: &Spot, members: &[Member], depth: usize) -> bool {
        match spot {
            Spot::Key(at) => {
                let Some(one) = self.sharded.get_mut(*at) else { return false };
                if one.members.is_some() {
                    return false;
                }
                let sources = members.iter().map(|member| one.source(member)).collect();
                one.members = sources;
                one.members.is_some()
            }
            Spot::Output { output, column, .. } => {
                let shape = self.shape;
                let Some(content) = shape.outputs.get(*output) else { return false };
                if depth >= DEPTH_MAX || self.opaque || content.opaque || content.references > 1 {
                    return false;
                }
                let Some(position) = self.position(*output, column) else { return false };
                let mut changed = false;
                for branch in &content.branches {
                    let Branch::Rows { level, group, opaque: false, .. } = branch else { continue };
                    let Some(Cell::Spot(inner)) = self.cell(branch, &position) else { continue };
                    let grouped = group.as_ref().is_none_or(|columns| {
                        columns.iter().any(|one| self.resolve(one, *level).as_ref() == Some(&inner))
                    });
                    // Only columns of the branch's own relations are filtered there.
                    let own = self.is_restricted(&inner, *level, (0, usize::MAX));
                    if grouped && own {
                        changed |= self.push(&inner, members, depth + 1);
                    }
                }
                changed
            }
        }
    }

    /// The column in a form that names the same in every branch.
    fn position(&self, output: usize, column: &Place) -> Option<Place> {
        let content = self.shape.outputs.get(output)?;
        let Place::Named(name) = column else { return Some(column.clone()) };
        if !content.columns.is_empty() {
            return content.columns.iter().position(|one| one == name).map(Place::At);
        }
        if let Some(Branch::Values(_)) = content.branches.first() {
            let number: usize = name.strip_prefix("column")?.parse().ok()?;
            let at = number.checked_sub(1).filter(|_| **name == *format!("column{number}"))?;
            return Some(Place::At(at));
        }
        if content.branches.len() <= 1 {
            return Some(column.clone());
        }
        // The first branch gives the names.
        let Some(Branch::Rows { items, .. }) = content.branches.first() else { return None };
        let mut found = (0..items.len()).filter(|at| item_name(&items[*at]) == Some(name));
        let at = found.next().filter(|_| found.next().is_none())?;
        Some(Place::At(at))
    }

    /// The column in each branch; `None` if one doesn't tell.
    fn cells(&self, output: usize, column: &Place) -> Option<Vec<Cell<'a>>> {
        let position = self.position(output, column)?;
        let shape = self.shape;
        shape.outputs.get(output)?.branches.iter().map(|one| self.cell(one, &position)).collect()
    }

    fn cell(&self, branch: &'a Branch, column: &Place) -> Option<Cell<'a>> {
        let (level, items) = match (branch, column) {
            (Branch::Rows { level, items, .. }, _) => (*level, items),
            (Branch::Unnested(_), _) if !self.unnests => return None,
            (Branch::Unnested(arrays), Place::At(at)) => {
                return Some(match arrays.get(*at)?.as_ref()? {
                    Elements::Within(array) => Cell::Within(array),
                    Elements::Each(list) => Cell::Values(list.iter().collect()),
                });
            }
            (Branch::Unnested(_), Place::Named(_)) => return None,
            (Branch::Values(rows), Place::At(at)) => {
                let cells: Option<Vec<&Value>> =
                    rows.iter().map(|row| row.get(*at)?.as_ref()).collect();
                return cells.map(Cell::Values);
            }
            (Branch::Values(_), Place::Named(_)) => return None,
        };
        let of = |item: &'a Item| match item {
            Item::Column { column, .. } => self.resolve(column, level).map(Cell::Spot),
            Item::Value { value, .. } => Some(Cell::Values(vec![value])),
            Item::Star { .. } | Item::Other { .. } => None,
        };
        match column {
            Place::At(_) if self.star_of_arrays(level, items).is_some() => {
                let arrays = self.star_of_arrays(level, items)?;
                self.cell(self.shape.outputs.get(arrays)?.branches.first()?, column)
            }
            Place::At(at) => {
                let before = items.get(..*at)?;
                if before.iter().any(|item| matches!(item, Item::Star { .. })) {
                    return None;
                }
                of(items.get(*at)?)
            }
            Place::Named(name) => {
                let mut named = items.iter().filter(|item| item_name(item) == Some(name));
                if let Some(first) = named.next() {
                    return if named.next().is_some() { None } else { of(first) };
                }
                // A second column of the name would make the name ambiguous.
                let mut stars = items.iter().filter_map(|item| match item {
                    Item::Star { qualifier, .. } => {
                        let (qualifier, name) = (qualifier.clone(), name.clone());
                        let column = Column::Named { qualifier, name, within: None };
                        self.resolve(&column, level)
                    }
                    Item::Column { .. } | Item::Value { .. } | Item::Other { .. } => None,
                });
                let found = stars.next()?;
                stars.next().is_none().then_some(Cell::Spot(found))
            }
        }
    }

    /// The output of arrays whose columns `SELECT *` hands out, if nothing else.
    fn star_of_arrays(&self, level: usize, items: &[Item]) -> Option<usize> {
        let [Item::Star { qualifier, .. }] = items else { return None };
        let [only] = &*self.shape.levels.get(level)?.relations else { return None };
        let RelationKind::Unnested(output) = only.kind else { return None };
        (qualifier.is_empty() || is_qualified_by(only, qualifier)).then_some(output)
    }

    /// What `column` of `level` is, if it is a key or a subquery's column.
    pub(super) fn resolve(&self, column: &Column, level: usize) -> Option<Spot> {
        match column {
            Column::At { relation, position } => {
                let RelationKind::Derived(output) = self.relation(level, *relation)?.kind else {
                    return None;
                };
                let (relation, column) = (*relation, Place::At(*position));
                Some(Spot::Output { level, relation, output, column })
            }
            Column::Named { qualifier, name, within } if qualifier.is_empty() => {
                self.resolve_bare(name, *within, level)
            }
            Column::Named { qualifier, name, .. } => self.resolve_qualified(qualifier, name, level),
        }
    }

    fn resolve_bare(
        &self,
        name: &Name,
        within: Option<(usize, usize)>,
        level: usize,
    ) -> Option<Spot> {
        let content = self.shape.levels.get(level)?;
        if content.natural {
            return None;
        }
        let all: Vec<Spot> = (0..content.relations.len())
            .filter_map(|relation| self.of_relation(level, relation, name))
            .collect();
        let (from, to) = within.unwrap_or((0, content.relations.len()));
        let mut found = all.iter().filter(|spot| self.is_restricted(spot, level, (from, to)));
        let first = found.next()?;
        let joins = content.merged.iter().filter(|one| *one == name).count();
        let more = found.next().is_some();
        if !more && (joins == 0 || within.is_some()) {
            return Some(first.clone());
        }
        // Merged columns: only if each side of each USING is such a key.
        let keyspace = |spot: &Spot| match spot {
            Spot::Key(at) => self.sharded.get(*at).map(|one| (one.keyspace, one.part)),
            Spot::Output { .. } => None,
        };
        let alike =
            all.iter().all(|spot| keyspace(spot).is_some() && keyspace(spot) == keyspace(first));
        (alike && all.len() == joins + 1).then(|| first.clone())
    }

    fn resolve_qualified(&self, qualifier: &[Name], name: &Name, level: usize) -> Option<Spot> {
        let mut at = Some(level);
        while let Some(level) = at {
            let content = self.shape.levels.get(level)?;
            let mut matching = (0..content.relations.len()).filter(|relation| {
                content.relations.get(*relation).is_some_and(|one| is_qualified_by(one, qualifier))
            });
            if let Some(relation) = matching.next() {
                if matching.next().is_some() {
                    return None;
                }
                return self.of_relation(level, relation, name);
            }
            at = content.parent;
        }
        None
    }

    /// The column `name` of a relation, if it is a key or a subquery's.
    fn of_relation(&self, level: usize, relation: usize, name: &Name) -> Option<Spot> {
        let one = self.relation(level, relation)?;
        if one.hidden {
            return None;
        }
        match &one.kind {
            RelationKind::Table { .. } if one.columns.is_empty() => (0..self.sharded.len())
                .find(|at| {
                    self.sharded.get(*at).is_some_and(|key| {
                        key.level == level && key.relation == relation && *key.column == **name
                    })
                })
                .map(Spot::Key),
            RelationKind::Derived(output) | RelationKind::Unnested(output) => {
                let column = if one.columns.is_empty() {
                    Place::Named(name.clone())
                } else {
                    Place::At(one.columns.iter().position(|column| column == name)?)
                };
                let content = self.shape.outputs.get(*output)?;
                let position = self.position(*output, &column)?;
                self.cell(content.branches.first()?, &position)?;
                Some(Spot::Output { level, relation, output: *output, column })
            }
            RelationKind::Table { .. } | RelationKind::Other => None,
        }
    }
}

/// A value of an inserted row's key, and what its NULL would mean.
pub(super) type KeyRow = (Member, Role);

fn item_name(item: &Item) -> Option<&Name> {
    match item {
        Item::Column { name, .. } => Some(name),
        Item::Value { name, .. } | Item::Other { name } => name.as_ref(),
        Item::Star { .. } => None,
    }
}

fn is_qualified_by(relation: &crate::sql::shape::Relation, qualifier: &[Name]) -> bool {
    if relation.hidden {
        return false;
    }
    match (&relation.alias, &relation.kind, qualifier) {
        (Some(alias), _, [only]) => alias == only,
        (None, RelationKind::Table { name, .. }, [only]) => name == only,
        (None, RelationKind::Table { schema: Some(schema), name }, [first, second]) => {
            schema == first && name == second
        }
        // `public.t.k` may name the `t` found by the search path.
        (None, RelationKind::Table { schema: None, name }, [_, second]) => name == second,
        _ => false,
    }
}

fn is_bare_param(value: &Value) -> bool {
    use crate::sql::shape::{Cast, Place};
    match value.place {
        Place::Param(_) => value.cast == Cast::None,
        Place::Null => true,
        Place::Literal(_) => false,
    }
}

pub(super) fn count(value: &Value, uses: &mut [u16]) {
    if let crate::sql::shape::Place::Param(index) = value.place
        && let Some(uses) = uses.get_mut(usize::from(index))
    {
        *uses = uses.saturating_add(1);
    }
}

/// Subqueries in subqueries are followed so far.
const DEPTH_MAX: usize = 16;
