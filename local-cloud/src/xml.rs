//! The XML replies of the EC2 API as a tree: just enough to read an emulator's answer, to change it, and to
//! write it again.

use anyhow::Context as _;
use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::Event;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub text: String,
    pub children: Vec<Self>,
}

impl Element {
    pub fn parse(xml: &[u8]) -> anyhow::Result<Self> {
        let mut reader = Reader::from_reader(xml);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().context("not well-formed XML")? {
                Event::Start(start) => {
                    open.push(Self { name: start.local_name().as_ref().to_owned(), ..Self::default() })
                }
                Event::Empty(empty) => {
                    let element = Self { name: empty.local_name().as_ref().to_owned(), ..Self::default() };
                    open.last_mut().context("element outside the document")?.children.push(element);
                }
                Event::End(_) => {
                    let mut element = open.pop().context("unbalanced XML")?;
                    element.text = element.text.trim().to_owned();
                    open.last_mut().context("unbalanced XML")?.children.push(element);
                }
                Event::Text(text) => {
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&text);
                    }
                }
                Event::GeneralRef(name) => {
                    let letter = match name.resolve_char_ref().context("not a character")? {
                        Some(letter) => letter.to_string(),
                        None => resolve_predefined_entity(&name).context("unknown entity")?.to_owned(),
                    };
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&letter);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        open.pop().context("unbalanced XML")
    }

    /// Returns all elements of this name at any depth, in document order.
    pub fn all<'a>(&'a self, name: &str) -> Vec<&'a Self> {
        let mut found = Vec::new();
        for child in &self.children {
            if child.name == name {
                found.push(child);
            }
            found.extend(child.all(name));
        }
        found
    }

    /// Returns the text of the first element of this name at any depth.
    pub fn text_of<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.all(name).first().map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }

    pub fn leaf(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), children: Vec::new() }
    }

    pub fn parent(name: &str, children: Vec<Self>) -> Self {
        Self { name: name.to_owned(), text: String::new(), children }
    }

    /// Returns the first element of this name at any depth, to be changed.
    pub fn find_mut(&mut self, name: &str) -> Option<&mut Self> {
        for child in &mut self.children {
            if child.name == name {
                return Some(child);
            }
            if let Some(found) = child.find_mut(name) {
                return Some(found);
            }
        }
        None
    }

    /// Sets the text of the first element of this name at any depth.
    pub fn set(&mut self, name: &str, text: &str) {
        if let Some(element) = self.find_mut(name) {
            text.clone_into(&mut element.text);
        }
    }

    /// Visits this element and all in it.
    pub fn each(&mut self, visit: &mut impl FnMut(&mut Self)) {
        visit(self);
        for child in &mut self.children {
            child.each(visit);
        }
    }

    /// Returns the text of the child of this name.
    pub fn child_text(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.as_str())
    }

    /// Formats a parsed answer as EC2 sends it.
    pub fn write_ec2(&self) -> String {
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        for root in &self.children {
            root.write(" xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"", &mut text);
        }
        text
    }

    fn write(&self, attributes: &str, out: &mut String) {
        let name = &self.name;
        out.push_str(&format!("<{name}{attributes}>{}", escape(&self.text)));
        for child in &self.children {
            child.write("", out);
        }
        out.push_str(&format!("</{name}>"));
    }

    /// Returns the direct `<item>`s of the first `<set>` of this name.
    pub fn items<'a>(&'a self, set: &str) -> Vec<&'a Self> {
        self.all(set)
            .first()
            .map(|element| element.children.iter().filter(|child| child.name == "item").collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_items_and_texts() {
        let xml = br#"<?xml version="1.0"?><R xmlns="x"><set><item><id>a</id></item><item><id>b</id><e/></item></set></R>"#;
        let tree = Element::parse(xml).expect("well-formed");
        let ids: Vec<_> = tree.items("set").iter().filter_map(|item| item.text_of("id")).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(tree.text_of("e"), None);
    }

    #[test]
    fn a_changed_tree_is_written_and_read_again() {
        let xml = b"<R xmlns='x'><set><item><id>a</id><v>1 &lt; 2</v></item></set><e/></R>";
        let mut tree = Element::parse(xml).expect("well-formed");
        tree.set("id", "b & c");
        tree.find_mut("set").expect("there").children.push(Element::leaf("item", "last"));
        let again = Element::parse(tree.write_ec2().as_bytes()).expect("well-formed");
        assert_eq!(again.children, tree.children);
        assert_eq!(again.all("item").len(), 2);
        assert_eq!((again.text_of("id"), again.text_of("v")), (Some("b & c"), Some("1 < 2")));
    }

    #[test]
    fn text_keeps_its_special_characters() {
        let tree = Element::parse(b"<R><v> a &amp; &lt;b&gt; &#233; </v></R>").expect("well-formed");
        assert_eq!(tree.text_of("v"), Some("a & <b> \u{e9}"));
    }
}
