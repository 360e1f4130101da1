//! Which column of a table means what, by the words in its header.
//!
//! Knows nothing of files. Where the words come from:
//!
//! - Bitrix24's export button, certain: the language files of the module `crm` (`crm.contact.list`,
//!   `crm.company.list`, `crm.lead.list`, `crm_field_multi.php`), Russian and English.
//! - amoCRM's export, certain for Russian: exported files and programs that read them. Deals carry
//!   the phones of their contact.
//! - Kommo's export: Spanish and Portuguese seen in programs that read them; the English words are
//!   translations of these and a guess.
//! - Everything else is a lenient guess at what a person would write.
//!
//! A word that is not here makes its column unread, nothing worse. Words that merely sound like a
//! client's phone ("Source phone", "Has phone") are left out on purpose.

use std::fmt;

use csv::StringRecord;

use crate::record::{EntityKind, Stage};

/// What a column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The card's identifier.
    Id,
    /// What kind of card the line is.
    Kind,
    /// A person's whole name, or the name of anything.
    Name,
    /// A first name, or a whole one where there is no column for the last name.
    FirstName,
    /// A last name.
    LastName,
    /// A lead's or deal's title.
    Title,
    /// The organisation.
    Company,
    /// Phones, one or more.
    Phone,
    /// The employee responsible.
    Responsible,
    /// That employee's extension.
    Extension,
    /// When the card last changed.
    Modified,
    /// Where a lead or deal stands, in few words that every portal has.
    StageGroup,
    /// Where a lead or deal stands, in the portal's own words.
    Stage,
    /// Asked for by `crm.fields`: the place in that list.
    Field(usize),
}

impl fmt::Display for Meaning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Id => "id",
            Self::Kind => "kind",
            Self::Name => "name",
            Self::FirstName => "first name",
            Self::LastName => "last name",
            Self::Title => "title",
            Self::Company => "company",
            Self::Phone => "phone",
            Self::Responsible => "responsible",
            Self::Extension => "extension",
            Self::Modified => "modified",
            Self::StageGroup | Self::Stage => "stage",
            Self::Field(_) => "field",
        })
    }
}

/// The words for each meaning, as [`plain`] leaves them, with blanks between.
const WORDS: &[(Meaning, &str)] = &[
    (Meaning::Id, "id ид идентификатор идентификационныйномер"),
    (
        Meaning::Kind,
        "kind type тип вид типзаписи типкарточки tipo",
    ),
    (
        Meaning::Name,
        "fullname полноеимя полноеимяконтакта contactfullname фио наименование название \
         клиент контакт client customer contact имяклиента clientname customername \
         contactname именование nombrecompleto nomecompleto",
    ),
    (
        Meaning::FirstName,
        "name имя firstname givenname nombre nome primeironome",
    ),
    (
        Meaning::LastName,
        "lastname surname familyname фамилия apellido sobrenome",
    ),
    (
        Meaning::Title,
        "названиелида leadname leadtitle названиесделки dealname dealtitle title \
         nombredellead",
    ),
    (
        Meaning::Company,
        "company компания companyname названиекомпании companytitle компанияконтакта \
         contactcompany организация названиеорганизации фирма organization organisation \
         compañía nombredelacompañía empresa nomedaempresa",
    ),
    (
        Meaning::Phone,
        "phone phones phonenumber телефон телефоны номертелефона тел workphone \
         рабочийтелефон workdirectphone directphone workdirect рабочийпрямойтелефон \
         mobile mobilephone cellphone мобильный мобильныйтелефон сотовый сотовыйтелефон \
         homephone домашнийтелефон otherphone otherphonenumber другойтелефон \
         дополнительныйтелефон smsmarketingphone телефондлярассылок fax факс номерфакса \
         городскойтелефон контактныйтелефон телефонконтакта contactphone tel telephone \
         telephonenumber whatsapp teléfono teléfonooficina teléfonooficinadirecto \
         teléfonocelular teléfonodecasa otroteléfono telefone telefonecomercial \
         teldiretocom celular telefoneresidencial outrotelefone",
    ),
    (
        Meaning::Responsible,
        "responsible ответственный responsibleuser responsibleperson responsibleemployee \
         ответственныйпользователь ответственныйсотрудник ответственныйменеджер менеджер \
         manager assignedto usuarioresponsable usuárioresponsável",
    ),
    (
        Meaning::Extension,
        "extension ext добавочный добавочныйномер доб внутреннийномер внутренний \
         внутреннийтелефон extensionnumber internalnumber",
    ),
    (
        Meaning::Modified,
        "modified датаизменения датаредактирования изменен изменено датаизмененияконтакта \
         datemodified modifiedon modifiedat lastmodified updated updatedat \
         fechademodificación modificadaem",
    ),
    (Meaning::StageGroup, "состояние statusgroup stagegroup"),
    (
        Meaning::Stage,
        "stage status статус статуслида стадия стадиялида стадиясделки этап этапсделки \
         leadstatus leadstage dealstage estatusdellead",
    ),
];

/// Headers that tell what kind of cards the whole file holds.
const KIND_MARKS: &[(EntityKind, &str)] = &[
    (
        EntityKind::Deal,
        "названиесделки этапсделки dealname dealstage стадиясделки",
    ),
    (EntityKind::Lead, "названиелида leadname статуслида"),
    (EntityKind::Contact, "типконтакта contacttype"),
    (
        EntityKind::Company,
        "типкомпании companytype сферадеятельности industry колвосотрудников",
    ),
];

/// The columns of one table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    meanings: Vec<Option<Meaning>>,
    headers: Vec<String>,
    kind: EntityKind,
}

impl Columns {
    /// Reads a header. `fields` are the columns that `crm.fields` asks for.
    pub(super) fn read(header: &StringRecord, fields: &[String]) -> Self {
        let mut headers: Vec<String> = header.iter().map(|word| word.trim().to_owned()).collect();
        while headers.last().is_some_and(String::is_empty) {
            headers.pop();
        }
        let wanted: Vec<String> = fields.iter().map(|field| plain(field)).collect();
        let meanings: Vec<Option<Meaning>> = headers
            .iter()
            .map(|header| meaning_of(header, &wanted))
            .collect();
        let kind = kind_of_file(&headers, &meanings);
        Self {
            meanings,
            headers,
            kind,
        }
    }

    /// How many columns have a meaning.
    pub(super) fn recognised(&self) -> usize {
        self.meanings.iter().flatten().count()
    }

    /// How many columns there are; empty headers at the end do not count.
    pub(super) fn width(&self) -> usize {
        self.headers.len()
    }

    /// Says whether there is such a column.
    pub(super) fn has(&self, meaning: Meaning) -> bool {
        self.meanings.contains(&Some(meaning))
    }

    /// The kind of cards where the line does not say.
    pub(super) fn kind(&self) -> EntityKind {
        self.kind
    }

    /// Each header with its meaning.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<Meaning>)> {
        let meanings = self.meanings.iter().copied();
        self.headers.iter().map(String::as_str).zip(meanings)
    }

    /// The values of this meaning in a record, empty ones left out, in the order of the columns.
    pub(super) fn values<'a>(
        &self,
        record: &'a StringRecord,
        meaning: Meaning,
    ) -> impl Iterator<Item = &'a str> {
        self.meanings
            .iter()
            .zip(record)
            .filter(move |(found, _)| **found == Some(meaning))
            .map(|(_, value)| as_typed(value))
            .filter(|value| !value.is_empty())
    }

    /// The first value of this meaning that is not empty.
    pub(super) fn value<'a>(&self, record: &'a StringRecord, meaning: Meaning) -> Option<&'a str> {
        self.values(record, meaning).next()
    }
}

/// A cell without the wrapping that keeps a spreadsheet from counting with it: `'+7916...`,
/// `="7916..."`.
fn as_typed(cell: &str) -> &str {
    let cell = cell.trim();
    let formula = cell
        .strip_prefix("=\"")
        .and_then(|rest| rest.strip_suffix('"'));
    if let Some(text) = formula {
        return text.trim();
    }
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(|c: char| c == '+' || c == '(' || c.is_numeric()) => rest,
        _ => cell,
    }
}

fn meaning_of(header: &str, wanted: &[String]) -> Option<Meaning> {
    let word = plain(header);
    if word.is_empty() {
        return None;
    }
    if let Some(place) = wanted.iter().position(|field| *field == word) {
        return Some(Meaning::Field(place));
    }
    let unnumbered = word.trim_end_matches(|c: char| c.is_ascii_digit());
    WORDS
        .iter()
        .find(|(meaning, words)| {
            is_among(words, &word) || (*meaning == Meaning::Phone && is_among(words, unnumbered))
        })
        .map(|(meaning, _)| *meaning)
}

/// Says whether `word` is one of the words in a list with blanks between them.
fn is_among(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|known| known == word)
}

fn kind_of_file(headers: &[String], meanings: &[Option<Meaning>]) -> EntityKind {
    let words: Vec<String> = headers.iter().map(|header| plain(header)).collect();
    let marked = KIND_MARKS
        .iter()
        .find(|(_, marks)| words.iter().any(|word| is_among(marks, word)));
    if let Some((kind, _)) = marked {
        return *kind;
    }
    let has = |meaning| meanings.contains(&Some(meaning));
    let has_person = [Meaning::Name, Meaning::FirstName, Meaning::LastName]
        .into_iter()
        .any(has);
    if has(Meaning::Company) && !has_person {
        EntityKind::Company
    } else {
        EntityKind::Contact
    }
}

/// A header as it is compared: lower case, letters and digits only, "е" for "ё", without the
/// "(контакт)" that amoCRM puts behind a field of the card.
pub(super) fn plain(header: &str) -> String {
    let lower = header.trim().to_lowercase();
    let bare = ["(контакт)", "(компания)", "(contact)", "(company)"]
        .into_iter()
        .find_map(|suffix| lower.strip_suffix(suffix))
        .unwrap_or(&lower);
    bare.chars()
        .filter(|c| c.is_alphanumeric())
        .map(|c| if c == 'ё' { 'е' } else { c })
        .collect()
}

/// The kind that a cell names; `None` if it names none.
pub(super) fn kind_named(cell: &str) -> Option<EntityKind> {
    match plain(cell).as_str() {
        "contact" | "контакт" | "person" | "физлицо" | "contacto" | "contato" => {
            Some(EntityKind::Contact)
        }
        "company" | "компания" | "организация" | "юрлицо" | "compañía" | "empresa" => {
            Some(EntityKind::Company)
        }
        "lead" | "лид" => Some(EntityKind::Lead),
        "deal" | "сделка" => Some(EntityKind::Deal),
        _ => None,
    }
}

/// Where a lead or deal stands, by the words that Bitrix24 and amoCRM come with. A portal may
/// rename its stages: an unknown word means that the card is still worked on.
pub(super) fn stage_named(cell: &str) -> Stage {
    match plain(cell).as_str() {
        "junk"
        | "junklead"
        | "некачественныйлид"
        | "брак"
        | "спам"
        | "провален"
        | "неуспешный"
        | "провал" => Stage::Junk,
        "closed"
        | "converted"
        | "goodlead"
        | "qualitylead"
        | "качественныйлид"
        | "сконвертирован"
        | "закрыт"
        | "закрыта"
        | "завершен"
        | "завершена"
        | "успешный"
        | "успех"
        | "won"
        | "lost"
        | "closedwon"
        | "closedlost"
        | "dealwon"
        | "deallost"
        | "сделкауспешна"
        | "сделкапровалена"
        | "успешнореализовано"
        | "закрытоинереализовано" => Stage::Closed,
        _ => Stage::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(header: &[&str]) -> Columns {
        Columns::read(&StringRecord::from(header.to_vec()), &[])
    }

    #[test]
    fn words_are_unambiguous_and_plain() {
        let mut seen = Vec::new();
        for word in WORDS.iter().flat_map(|(_, words)| words.split(' ')) {
            assert_eq!(plain(word), word);
            assert!(!seen.contains(&word), "{word} stands twice");
            seen.push(word);
        }
    }

    #[test]
    fn headers_are_recognised_however_they_are_written() {
        let table = [
            ("ID", Some(Meaning::Id)),
            (" Ид ", Some(Meaning::Id)),
            ("РАБОЧИЙ\u{a0}ТЕЛЕФОН", Some(Meaning::Phone)),
            ("Телефон 2", Some(Meaning::Phone)),
            ("Phone_3", Some(Meaning::Phone)),
            ("Тел. прямой", None),
            ("Ответственный (контакт)", Some(Meaning::Responsible)),
            ("Доб.", Some(Meaning::Extension)),
            ("Has phone", None),
            ("Source phone", None),
            ("Тип контакта", None),
            ("Status group", Some(Meaning::StageGroup)),
        ];
        for (header, expected) in table {
            assert_eq!(meaning_of(header, &[]), expected, "{header}");
        }
    }

    #[test]
    fn the_header_tells_the_kind_of_the_file() {
        let table: [(&[&str], EntityKind); 6] = [
            (
                &["ID", "Имя", "Фамилия", "Компания", "Телефон"],
                EntityKind::Contact,
            ),
            (
                &["ID", "Название компании", "Рабочий телефон"],
                EntityKind::Company,
            ),
            (
                &["ID", "Название лида", "Имя", "Название компании"],
                EntityKind::Lead,
            ),
            (
                &["ID", "Название сделки", "Компания", "Рабочий телефон"],
                EntityKind::Deal,
            ),
            (&["ID", "Тип компании", "Название"], EntityKind::Company),
            (&["Тип контакта", "Компания"], EntityKind::Contact),
        ];
        for (header, expected) in table {
            assert_eq!(columns(header).kind(), expected, "{header:?}");
        }
    }

    #[test]
    fn spreadsheet_wrapping_comes_off() {
        let table = [
            ("'+79161234567", "+79161234567"),
            ("=\"89161234567\"", "89161234567"),
            (" 8 916 ", "8 916"),
            ("'s-Hertogenbosch", "'s-Hertogenbosch"),
        ];
        for (cell, expected) in table {
            assert_eq!(as_typed(cell), expected);
        }
    }

    #[test]
    fn asked_for_fields_come_before_meanings() {
        let header = StringRecord::from(vec!["id", "VIP", "Статус"]);
        let fields = ["Vip".to_owned(), "статус".to_owned()];
        let columns = Columns::read(&header, &fields);
        assert!(columns.has(Meaning::Field(0)));
        assert!(columns.has(Meaning::Field(1)));
        assert!(!columns.has(Meaning::Stage));
    }
}
