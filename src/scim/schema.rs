//! The attributes of a user, as `/Schemas` publishes them. A test compares them with what `UserRow::render` returns.

use serde_json::{Value as Json, json};

/// The type of the only e-mail address and telephone number that rosterd has.
pub const WORK: &str = "work";

/// An attribute (RFC 7643, section 7).
pub struct Attribute {
    name: &'static str,
    kind: Kind,
    description: &'static str,
    is_required: bool,
    is_multi_valued: bool,
    is_unique: bool,
}

enum Kind {
    Text,
    /// The text `work`.
    Work,
    Boolean,
    Complex(&'static [Attribute]),
}

const fn attribute(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
    Attribute { name, kind, description, is_required: false, is_multi_valued: false, is_unique: false }
}

const fn required(attribute: Attribute) -> Attribute {
    Attribute { is_required: true, ..attribute }
}

const fn multi_valued(attribute: Attribute) -> Attribute {
    Attribute { is_multi_valued: true, ..attribute }
}

/// The attributes of users, without `schemas`, `id`, `externalId` and `meta`, which each resource of SCIM has.
///
/// `active` is the last one: conformance tests set the attributes in this order, and an archived user refuses new names.
pub static USER: &[Attribute] = &[
    Attribute {
        is_unique: true,
        ..required(attribute(
            "userName",
            Kind::Text,
            "The name at the directory. Default: the e-mail address.",
        ))
    },
    required(attribute("name", Kind::Complex(NAME), "First and last name at Harvest.")),
    attribute(
        "displayName",
        Kind::Text,
        "A name for display. Default: first and last name. Harvest has none.",
    ),
    required(multi_valued(attribute("emails", Kind::Complex(EMAIL), "The e-mail address at Harvest."))),
    multi_valued(attribute("phoneNumbers", Kind::Complex(PHONE), "The telephone number at Harvest.")),
    attribute("active", Kind::Boolean, "False if the user is archived at Harvest."),
];
static NAME: &[Attribute] = &[
    required(attribute("givenName", Kind::Text, "First name.")),
    required(attribute("familyName", Kind::Text, "Last name.")),
];
static EMAIL: &[Attribute] = &[
    required(attribute("value", Kind::Text, "The address.")),
    attribute("type", Kind::Work, "Always work."),
    attribute("primary", Kind::Boolean, "Always true."),
];
static PHONE: &[Attribute] =
    &[attribute("value", Kind::Text, "The number."), attribute("type", Kind::Work, "Always work.")];

impl Attribute {
    /// The definition in `/Schemas`.
    pub fn definition(&self) -> Json {
        let mut definition = json!({
            "name": self.name,
            "type": match self.kind {
                Kind::Text | Kind::Work => "string",
                Kind::Boolean => "boolean",
                Kind::Complex(_) => "complex",
            },
            "multiValued": self.is_multi_valued,
            "description": self.description,
            "required": self.is_required,
            "mutability": "readWrite",
            "returned": "default",
        });
        if !matches!(self.kind, Kind::Boolean) {
            definition["uniqueness"] = json!(if self.is_unique { "server" } else { "none" });
        }
        match self.kind {
            Kind::Text => definition["caseExact"] = json!(false),
            Kind::Work => {
                definition["caseExact"] = json!(false);
                definition["canonicalValues"] = json!([WORK]);
            }
            Kind::Complex(sub) => {
                definition["subAttributes"] = sub.iter().map(Self::definition).collect();
            }
            Kind::Boolean => {}
        }
        definition
    }
}
