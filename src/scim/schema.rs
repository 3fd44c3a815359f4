//! The attributes of users and groups, as `/Schemas` publishes them. Tests compare them with rendered resources.

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
    mutability: &'static str,
}

enum Kind {
    Text,
    Fixed(&'static str),
    /// The URL of a resource of this type.
    Reference(&'static str),
    Boolean,
    Complex(&'static [Attribute]),
}

const fn attribute(name: &'static str, kind: Kind, description: &'static str) -> Attribute {
    let mutability = "readWrite";
    Attribute {
        name,
        kind,
        description,
        is_required: false,
        is_multi_valued: false,
        is_unique: false,
        mutability,
    }
}

const fn read_only(attribute: Attribute) -> Attribute {
    Attribute { mutability: "readOnly", ..attribute }
}

const fn immutable(attribute: Attribute) -> Attribute {
    Attribute { mutability: "immutable", ..attribute }
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
    GROUPS,
    attribute("active", Kind::Boolean, "False if the user is archived at Harvest."),
];
/// Of users, if SCIM has groups.
pub const GROUPS: Attribute =
    read_only(multi_valued(attribute("groups", Kind::Complex(USER_GROUP), "The job roles at Harvest.")));
static USER_GROUP: &[Attribute] = &[
    read_only(attribute("value", Kind::Text, "The id of the group.")),
    read_only(attribute("$ref", Kind::Reference("Group"), "The URL of the group.")),
    read_only(attribute("display", Kind::Text, "The name of the job role.")),
];
/// The attributes of groups, without those of each resource.
pub static GROUP: &[Attribute] = &[
    Attribute {
        is_unique: true,
        ..required(attribute("displayName", Kind::Text, "The name of the job role at Harvest."))
    },
    multi_valued(attribute("members", Kind::Complex(MEMBER), "The users who have the job role.")),
];
static MEMBER: &[Attribute] = &[
    immutable(attribute("value", Kind::Text, "The id of the user.")),
    immutable(attribute("$ref", Kind::Reference("User"), "The URL of the user.")),
    immutable(attribute("type", Kind::Fixed("User"), "Always User.")),
];
static NAME: &[Attribute] = &[
    required(attribute("givenName", Kind::Text, "First name.")),
    required(attribute("familyName", Kind::Text, "Last name.")),
];
static EMAIL: &[Attribute] = &[
    required(attribute("value", Kind::Text, "The address.")),
    attribute("type", Kind::Fixed(WORK), "Always work."),
    attribute("primary", Kind::Boolean, "Always true."),
];
static PHONE: &[Attribute] =
    &[attribute("value", Kind::Text, "The number."), attribute("type", Kind::Fixed(WORK), "Always work.")];

impl Attribute {
    pub fn is_groups(&self) -> bool {
        self.name == GROUPS.name
    }

    pub fn definition(&self) -> Json {
        let mut definition = json!({
            "name": self.name,
            "type": match self.kind {
                Kind::Text | Kind::Fixed(_) => "string",
                Kind::Reference(_) => "reference",
                Kind::Boolean => "boolean",
                Kind::Complex(_) => "complex",
            },
            "multiValued": self.is_multi_valued,
            "description": self.description,
            "required": self.is_required,
            "mutability": self.mutability,
            "returned": "default",
        });
        if !matches!(self.kind, Kind::Boolean) {
            definition["uniqueness"] = json!(if self.is_unique { "server" } else { "none" });
        }
        match self.kind {
            Kind::Text => definition["caseExact"] = json!(false),
            Kind::Fixed(text) => {
                definition["caseExact"] = json!(false);
                definition["canonicalValues"] = json!([text]);
            }
            Kind::Reference(resource_type) => {
                definition["caseExact"] = json!(true);
                definition["referenceTypes"] = json!([resource_type]);
            }
            Kind::Complex(sub) => {
                definition["subAttributes"] = sub.iter().map(Self::definition).collect();
            }
            Kind::Boolean => {}
        }
        definition
    }
}
