//! What people do to a CRM: one change after another, with the truth about every number kept aside.
//!
//! The truth is what the generator knows about the numbers that it typed, never what anybody reads
//! from the text. Identifiers are never used twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::messy::Dice;
use crate::world::{Entry, Happened, List, Stage, User, What, World};

/// Fewer cards than this, and more are added than taken away.
const FEW_CARDS: usize = 700;
/// More cards than this, and it is the other way round.
const MANY_CARDS: usize = 1_800;
const FIRST_USER: u64 = 501;
/// Users who work here at the beginning.
const USERS: u64 = 40;
/// More are not hired.
const MOST_USERS: usize = 70;
/// Fewer do not work here.
const FEWEST_ACTIVE: usize = 12;

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "Анна", "Пётр", "Фёдор", "Щукарь", "Эльвира", "John", "Айгуль", "O'Neil", "Семён & сын",
    "ООО «Ромашка»", "ИП Ёлкин (опт)", "100% Хлеб; булки", "Сервис+", "Кафе \"На углу\"",
];
const LAST_NAMES: &[&str] = &[
    "Иванов",
    "Мамин-Сибиряк",
    "",
    "Smith",
    "Цой",
    "Щёлоков (Тверь)",
];
/// Prefixes of real plans, each with how many digits follow.
#[rustfmt::skip]
const RANGES: &[(u64, u32)] = &[
    (7903, 7), (7916, 7), (7926, 7), (7960, 7), (7495, 7), (7812, 7), (7701, 7), (37_529, 7),
    (99_890, 7),
];

/// Where a card stands.
pub type Place = (List, u64);

/// What a CRM is like.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// The lists that it has: contacts, companies, and those with stages.
    pub lists: &'static [List],
    /// Whether a user has an extension field; else dismissed users may vanish from the list.
    pub has_extensions: bool,
    /// Whether it dates and tells each change of a card. Others move links without a word, and
    /// only a walk finds that.
    pub is_candid: bool,
}

/// A CRM that people work in.
pub struct Life {
    dice: Dice,
    nature: Nature,
    /// The numbers that stand in each card.
    numbers: BTreeMap<Place, Vec<u64>>,
    /// Every number that ever stood in a card.
    ever: BTreeSet<u64>,
    last_ids: BTreeMap<List, u64>,
    last_user: u64,
}

impl Life {
    /// A company with its cards and users, and the CRM's clock at `now`.
    pub fn begin(seed: u64, nature: Nature, now: i64) -> (Self, World) {
        let mut life = Self {
            dice: Dice(seed),
            nature,
            numbers: BTreeMap::new(),
            ever: BTreeSet::new(),
            last_ids: BTreeMap::new(),
            last_user: FIRST_USER - 1,
        };
        let mut world = World::default();
        for _ in 0..USERS {
            life.hire(&mut world);
        }
        let mut began = now - 90 * 86_400;
        for list in [List::Companies, List::Contacts, List::Leads, List::Deals] {
            let cards = match list {
                List::Contacts => 650,
                List::Companies => 150,
                List::Leads | List::Deals => 250,
            };
            for _ in 0..cards * usize::from(nature.lists.contains(&list)) {
                began += 60;
                life.add(&mut world, list, began);
            }
        }
        (life, world)
    }

    /// Makes one change at this second of the CRM's clock, and tells what has happened by it. A
    /// change of users tells nothing: no CRM has notices of that.
    pub fn change(&mut self, world: &mut World, now: i64) -> Vec<Happened> {
        let list = self.some_list();
        let cards: usize = self
            .nature
            .lists
            .iter()
            .map(|list| world.list(*list).len())
            .sum();
        let roll = match cards {
            0..FEW_CARDS => self.below(14),
            MANY_CARDS.. => 14 + self.below(14),
            _ => self.below(100),
        };
        match roll {
            0..14 => self.add(world, list, now),
            14..22 => self.delete(world, list, now),
            22..28 => self.merge(world, list, now),
            28..44 => self.edit(world, list, now, |life, entry, _| life.rename(entry)),
            44..64 => self.edit(world, list, now, Self::change_phones),
            64..80 => self.reassign(world, list, now),
            80..87 => {
                let list = self.last_list();
                self.edit(world, list, now, |life, entry, _| {
                    entry.stage = life.pick(&[Stage::Open, Stage::Closed, Stage::Junk]);
                })
            }
            87..92 => self.edit(world, list, now, Self::relink),
            92..96 => self.edit(world, list, now, |_, _, _| {}),
            _ => {
                self.change_users(world);
                Vec::new()
            }
        }
    }

    /// The numbers that stand in a card.
    pub fn numbers_of(&self, place: Place) -> &[u64] {
        self.numbers.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Every number that ever stood in a card.
    pub fn ever(&self) -> &BTreeSet<u64> {
        &self.ever
    }

    /// The highest identifier that a list ever had.
    pub fn last_id(&self, list: List) -> u64 {
        self.last_ids.get(&list).copied().unwrap_or(0)
    }

    fn add(&mut self, world: &mut World, list: List, now: i64) -> Vec<Happened> {
        let step = 1 + self.below(3);
        let highest = self.last_ids.entry(list).or_default();
        *highest += step;
        let mut entry = Entry {
            id: *highest,
            modified: now,
            ..Entry::default()
        };
        self.rename_in(list, &mut entry);
        entry.responsible = self.some_user(world);
        if list != List::Deals {
            let count = [1, 1, 1, 1, 2, 2, 3, 0][self.place(8)];
            let numbers = (0..count).map(|_| self.number()).collect();
            self.write(list, &mut entry, numbers);
        }
        self.relink_in(list, world, &mut entry);
        let id = entry.id;
        world.list_mut(list).push(entry);
        vec![happened(list, id, What::Added)]
    }

    fn delete(&mut self, world: &mut World, list: List, now: i64) -> Vec<Happened> {
        let Some(index) = self.some_index(world, list) else {
            return Vec::new();
        };
        let gone = world.list_mut(list).remove(index);
        self.numbers.remove(&(list, gone.id));
        let mut all = vec![happened(list, gone.id, What::Deleted)];
        // Or a link to what is gone stays behind.
        if self.in_hundred(50) {
            let moved = move_links(world, list, gone.id, None);
            self.tell_of(&moved, world, now, &mut all);
        }
        all
    }

    fn merge(&mut self, world: &mut World, list: List, now: i64) -> Vec<Happened> {
        let (Some(one), Some(other)) = (self.some_index(world, list), self.some_index(world, list))
        else {
            return Vec::new();
        };
        if one == other {
            return Vec::new();
        }
        let victim = world.list_mut(list).remove(one);
        let other = if other > one { other - 1 } else { other };
        let mut numbers = self.numbers.remove(&(list, victim.id)).unwrap_or_default();
        let mut survivor = world.list(list)[other].clone();
        numbers.extend_from_slice(self.numbers_of((list, survivor.id)));
        numbers.sort_unstable();
        numbers.dedup();
        if list != List::Deals {
            self.write(list, &mut survivor, numbers);
        }
        survivor.modified = now;
        survivor.company = survivor.company.or(victim.company);
        let id = survivor.id;
        world.list_mut(list)[other] = survivor;
        let moved = move_links(world, list, victim.id, Some(id));
        let mut all = vec![
            happened(list, victim.id, What::MergedInto(id)),
            happened(list, id, What::Changed),
        ];
        if self.in_hundred(50) {
            all.reverse();
        }
        self.tell_of(&moved, world, now, &mut all);
        all
    }

    /// Dates and tells what a deletion or merge did to cards that were linked; or does not.
    fn tell_of(&mut self, moved: &[Place], world: &mut World, now: i64, all: &mut Vec<Happened>) {
        if !self.nature.is_candid && self.in_hundred(50) {
            return;
        }
        for &(list, id) in moved {
            let entries = world.list_mut(list);
            let index = entries.partition_point(|entry| entry.id < id);
            entries[index].modified = now;
            all.push(happened(list, id, What::Changed));
        }
    }

    fn edit(
        &mut self,
        world: &mut World,
        list: List,
        now: i64,
        act: impl FnOnce(&mut Self, &mut Entry, (List, &World)),
    ) -> Vec<Happened> {
        let Some(index) = self.some_index(world, list) else {
            return Vec::new();
        };
        let mut entry = world.list(list)[index].clone();
        act(self, &mut entry, (list, world));
        entry.modified = now;
        let id = entry.id;
        world.list_mut(list)[index] = entry;
        vec![happened(list, id, What::Changed)]
    }

    fn reassign(&mut self, world: &mut World, list: List, now: i64) -> Vec<Happened> {
        let Some(index) = self.some_index(world, list) else {
            return Vec::new();
        };
        let user = self.some_user(world);
        let entry = &mut world.list_mut(list)[index];
        let former = std::mem::replace(&mut entry.responsible, user);
        entry.modified = now;
        vec![happened(list, entry.id, What::Reassigned(former))]
    }

    fn rename(&mut self, entry: &mut Entry) {
        entry.name = format!("{} {}", self.pick(NAMES), self.below(1_000));
    }

    fn rename_in(&mut self, list: List, entry: &mut Entry) {
        self.rename(entry);
        if list == List::Contacts {
            entry.last_name = self.pick(LAST_NAMES).to_owned();
        }
    }

    fn change_phones(&mut self, entry: &mut Entry, (list, _): (List, &World)) {
        if list == List::Deals {
            return self.rename(entry);
        }
        let mut numbers = self.numbers_of((list, entry.id)).to_vec();
        match self.below(4) {
            0 => numbers.push(self.number()),
            1 => drop(numbers.pop()),
            2 => numbers = vec![self.number()],
            // The same numbers, typed in another way.
            _ => {}
        }
        numbers.sort_unstable();
        numbers.dedup();
        self.write(list, entry, numbers);
    }

    fn relink(&mut self, entry: &mut Entry, (list, world): (List, &World)) {
        self.relink_in(list, world, entry);
    }

    fn relink_in(&mut self, list: List, world: &World, entry: &mut Entry) {
        let has_company = matches!(list, List::Contacts | List::Deals) && self.in_hundred(40);
        entry.company = has_company
            .then(|| self.some_id(world, List::Companies))
            .flatten();
        if list == List::Deals {
            let count = self.below(3);
            let contacts: Vec<u64> = (0..count)
                .filter_map(|_| self.some_id(world, List::Contacts))
                .collect();
            entry.contacts.clear();
            for contact in contacts {
                if !entry.contacts.contains(&contact) {
                    entry.contacts.push(contact);
                }
            }
        }
    }

    fn change_users(&mut self, world: &mut World) {
        let index = self.place(world.users.len());
        let active = world.users.iter().filter(|user| user.active).count();
        match self.below(4) {
            0 if world.users.len() < MOST_USERS => self.hire(world),
            1 if self.nature.has_extensions => {
                world.users[index].extension = self.extension();
            }
            1 | 2 if active > FEWEST_ACTIVE => {
                // Where users are found by e-mail, a dismissed one may vanish altogether.
                if !self.nature.has_extensions && self.in_hundred(30) {
                    world.users.remove(index);
                } else {
                    world.users[index].active = false;
                }
            }
            _ => world.users[index].active = true,
        }
    }

    fn hire(&mut self, world: &mut World) {
        self.last_user += 1;
        let id = self.last_user;
        let extension = self
            .nature
            .has_extensions
            .then(|| self.extension())
            .flatten();
        world.users.push(User {
            id,
            first_name: self.pick(&["Анна", "Пётр", "Ольга"]).to_owned(),
            last_name: format!("Сотрудник-{id}"),
            active: true,
            extension,
            mobile: None,
            email: format!("user{id}@example.com"),
            ..User::default()
        });
    }

    /// Mostly one that may be rung.
    fn extension(&mut self) -> Option<String> {
        match self.below(12) {
            0 => None,
            1 => Some(String::new()),
            2 => Some("+79031112233".to_owned()),
            3 => Some(format!(" {} ", 100 + self.below(300))),
            _ => Some((100 + self.below(300)).to_string()),
        }
    }

    /// A number that is new, or another card's.
    fn number(&mut self) -> u64 {
        if self.in_hundred(20) && !self.numbers.is_empty() {
            let index = self.place(self.numbers.len());
            let others = self.numbers.values().nth(index);
            if let Some(number) = others.and_then(|numbers| numbers.first()) {
                return *number;
            }
        }
        loop {
            let (prefix, digits) = self.pick(RANGES);
            let room = 10_u64.pow(digits);
            // Subscriber numbers begin with 2 to 7: those are in use in all of these plans.
            let first = (2 + self.below(6)) * (room / 10);
            let number = prefix * room + first + self.below(room / 10);
            if self.ever.insert(number) {
                return number;
            }
        }
    }

    /// Types a card's numbers into its fields.
    fn write(&mut self, list: List, entry: &mut Entry, mut numbers: Vec<u64>) {
        let mut unique = BTreeSet::new();
        numbers.retain(|number| unique.insert(*number));
        entry.phones.clear();
        let mut is_open = false;
        for &number in &numbers {
            let (text, may_go_on) = self.typed(number);
            match entry.phones.last_mut() {
                Some(field) if is_open && self.in_hundred(30) => {
                    field.push_str(self.pick(&[", ", "; ", " / ", "\n"]));
                    field.push_str(&text);
                }
                _ => entry.phones.push(text),
            }
            is_open = may_go_on;
        }
        if self.in_hundred(3) {
            entry
                .phones
                .push(self.pick(&["нет", "-", "уточнить"]).to_owned());
        }
        self.numbers.insert((list, entry.id), numbers);
    }

    /// A number as somebody might type it, and whether another may follow in the same field.
    fn typed(&mut self, number: u64) -> (String, bool) {
        let digits = number.to_string();
        let Some(national) = digits.strip_prefix('7') else {
            let (code, rest) = digits.split_at(3);
            let text = match self.below(3) {
                0 => format!("+{digits}"),
                1 => format!("+{code} {rest}"),
                _ => format!("+{code} ({}) {}", &rest[..2], &rest[2..]),
            };
            return (text, true);
        };
        let (a, b, c, d) = (
            &national[..3],
            &national[3..6],
            &national[6..8],
            &national[8..],
        );
        match self.below(11) {
            0 => (format!("+7{national}"), true),
            1 => (format!("8{national}"), true),
            2 => (format!("7{national}"), true),
            3 => (national.to_owned(), true),
            4 => (format!("+7 ({a}) {b}-{c}-{d}"), true),
            5 => (format!("8 ({a}) {b}-{c}-{d}"), true),
            6 => (format!("8-{a}-{b}-{c}-{d}"), true),
            7 => (format!("+7\u{a0}{a}\u{a0}{b}\u{2011}{c}\u{2011}{d}"), true),
            8 => (format!("'+7{national}"), false),
            9 => (
                format!("8 ({a}) {b}-{c}-{d} доб. {}", 10 + self.below(490)),
                false,
            ),
            _ => (format!("тел.: +7 {a} {b} {c} {d} (жена)"), false),
        }
    }

    /// Contacts most, as in life.
    fn some_list(&mut self) -> List {
        match self.below(10) {
            0..6 => List::Contacts,
            6 | 7 => List::Companies,
            _ => {
                let rest = &self.nature.lists[2..];
                rest[self.place(rest.len())]
            }
        }
    }

    /// A list whose cards have stages.
    fn last_list(&mut self) -> List {
        let rest = &self.nature.lists[2..];
        rest[self.place(rest.len())]
    }

    fn some_index(&mut self, world: &World, list: List) -> Option<usize> {
        let length = world.list(list).len();
        (length > 0).then(|| self.place(length))
    }

    fn some_id(&mut self, world: &World, list: List) -> Option<u64> {
        let index = self.some_index(world, list)?;
        Some(world.list(list)[index].id)
    }

    /// Mostly one who works here.
    fn some_user(&mut self, world: &World) -> u64 {
        let index = self.place(world.users.len());
        let user = &world.users[index];
        if user.active || self.in_hundred(20) {
            return user.id;
        }
        let working = world.users.iter().find(|user| user.active);
        working.map_or(user.id, |user| user.id)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.dice.below(end)
    }

    fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.place(list.len())]
    }

    fn in_hundred(&mut self, cases: u64) -> bool {
        self.below(100) < cases
    }
}

fn happened(list: List, id: u64, what: What) -> Happened {
    Happened { list, id, what }
}

/// Points the links to a contact or company elsewhere, or nowhere; tells whose.
fn move_links(world: &mut World, list: List, from: u64, to: Option<u64>) -> Vec<Place> {
    let mut moved = Vec::new();
    for holder in [List::Contacts, List::Deals] {
        for entry in world.list_mut(holder) {
            let is_linked = match list {
                List::Companies => entry.company == Some(from),
                List::Contacts => entry.contacts.contains(&from),
                List::Leads | List::Deals => false,
            };
            if !is_linked {
                continue;
            }
            moved.push((holder, entry.id));
            if list == List::Companies {
                entry.company = to;
                continue;
            }
            let is_there = to.is_some_and(|to| entry.contacts.contains(&to));
            match to.filter(|_| !is_there) {
                Some(to) => {
                    for contact in &mut entry.contacts {
                        *contact = if *contact == from { to } else { *contact };
                    }
                }
                None => entry.contacts.retain(|contact| *contact != from),
            }
        }
    }
    moved
}

#[test]
fn a_life_follows_from_its_seed_and_keeps_its_size() {
    const LISTS: &[List] = &[List::Contacts, List::Companies, List::Leads, List::Deals];
    let nature = Nature {
        lists: LISTS,
        has_extensions: true,
        is_candid: false,
    };
    let live = |seed| {
        let (mut life, mut world) = Life::begin(seed, nature, 1_000_000);
        let mut kinds = BTreeMap::<String, usize>::new();
        for second in 0..5_000 {
            for one in life.change(&mut world, 1_000_000 + second) {
                let name = format!("{:?}", one.what);
                let name = name.split('(').next().unwrap().to_owned();
                *kinds.entry(name).or_default() += 1;
                let is_there = world.list(one.list).iter().any(|entry| entry.id == one.id);
                let is_gone = matches!(one.what, What::Deleted | What::MergedInto(_));
                assert_ne!(is_there, is_gone, "{one:?}");
            }
        }
        let cards: usize = LISTS.iter().map(|list| world.list(*list).len()).sum();
        assert!((500..2_200).contains(&cards), "{cards} cards");
        for list in LISTS {
            assert!(world.list(*list).is_sorted_by_key(|entry| entry.id));
        }
        (format!("{world:?}"), kinds)
    };
    let (world, kinds) = live(1);
    assert_eq!(live(1).0, world);
    assert_ne!(live(2).0, world);
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    assert!(kinds.values().all(|count| *count > 150), "{kinds:?}");
}
