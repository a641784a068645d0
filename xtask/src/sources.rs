//! The modules of a crate as their sources declare them: what each uses, imports and defines. For `cargo xtask
//! structure`.
//!
//! Items under `#[cfg(test)]` are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Ident, Item, Token, UseTree, Visibility};

use crate::shell::root;

/// A module that has a file of its own, by its path from the crate root.
pub type Modules = BTreeMap<Vec<String>, Module>;

#[derive(Default)]
pub struct Module {
    pub file: PathBuf,
    /// Modules that it declares with `mod name;`.
    children: Vec<String>,
    /// Paths that it names, from the crate root.
    pub uses: BTreeSet<Vec<String>>,
    /// What its imports and re-exports stand for.
    aliases: BTreeMap<String, Vec<String>>,
    /// Names of its types, and whether they are public.
    pub types: Vec<(String, bool)>,
}

/// Reads a file and, through its `mod` items, the files below it.
pub fn read(file: &Path, path: Vec<String>, modules: &mut Modules) -> Result<()> {
    let text = fs::read_to_string(root().join(file)).with_context(|| format!("reading {}", file.display()))?;
    let module = parse(&text, &path).with_context(|| format!("parsing {}", file.display()))?;
    let stem = file.file_stem().unwrap_or_default();
    let directory = file.parent().unwrap_or(Path::new(""));
    let is_directory = path.is_empty() || stem == "mod";
    let below = if is_directory { directory.to_path_buf() } else { directory.join(stem) };
    for child in &module.children {
        let candidates = [below.join(format!("{child}.rs")), below.join(child).join("mod.rs")];
        // A module with a `path` attribute lies outside the crate and is not read.
        let Some(found) = candidates.iter().find(|candidate| root().join(candidate).is_file()) else { continue };
        read(found, [path.clone(), vec![child.clone()]].concat(), modules)?;
    }
    modules.insert(path, Module { file: file.to_path_buf(), ..module });
    Ok(())
}

pub fn parse(text: &str, path: &[String]) -> Result<Module> {
    let file = syn::parse_file(text)?;
    let is_child = |item: &Item| match item {
        Item::Mod(item) if item.content.is_none() && !is_test(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    };
    let children = file.items.iter().filter_map(is_child).collect();
    let mut scan = Scan { path: path.to_vec(), module: Module { children, ..Module::default() } };
    scan.visit_file(&file);
    Ok(scan.module)
}

struct Scan {
    /// Where the scan is, inline modules included; `super` counts from here.
    path: Vec<String>,
    module: Module,
}

impl Scan {
    /// The path from the crate root; `None` if it leads to another crate or to a name of the file itself.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (head, tail) = path.split_first()?;
        let start = match head.as_str() {
            "crate" => Vec::new(),
            "self" => self.path.clone(),
            "super" => self.path.split_last()?.1.to_vec(),
            child if self.module.children.iter().any(|name| name == child) => {
                [self.path.clone(), vec![head.clone()]].concat()
            }
            _ => return None,
        };
        Some(tail.iter().fold(start, |mut path, part| {
            if part == "super" {
                path.pop();
            } else {
                path.push(part.clone());
            }
            path
        }))
    }

    fn import(&mut self, tree: &UseTree, prefix: &[String], public: bool) {
        let with = |ident: &Ident| [prefix, &[ident.to_string()]].concat();
        let (path, alias) = match tree {
            UseTree::Path(tree) => return self.import(&tree.tree, &with(&tree.ident), public),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, prefix, public));
            }
            UseTree::Glob(_) => (prefix.to_vec(), None),
            UseTree::Name(name) if name.ident == "self" => (prefix.to_vec(), prefix.last().cloned()),
            UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
        };
        let Some(path) = self.absolute(&path) else { return };
        if let Some(alias) = alias {
            self.module.aliases.insert(alias, path.clone());
        }
        // A re-export passes a name on and does not depend on it.
        if !public {
            self.module.uses.insert(path);
        }
    }

    fn declare(&mut self, name: &Ident, visibility: &Visibility) {
        self.module.types.push((name.to_string(), matches!(visibility, Visibility::Public(_))));
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_test(attributes) {
            return;
        }
        match item {
            Item::Struct(item) => self.declare(&item.ident, &item.vis),
            Item::Enum(item) => self.declare(&item.ident, &item.vis),
            Item::Trait(item) => self.declare(&item.ident, &item.vis),
            Item::Type(item) => self.declare(&item.ident, &item.vis),
            Item::Use(item) => {
                return self.import(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
            }
            Item::Mod(item) => {
                self.path.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.path.pop();
                return;
            }
            // A macro whose input is items, such as `wire!`.
            Item::Macro(item) => {
                if let Ok(file) = item.mac.parse_body::<syn::File>() {
                    file.items.iter().for_each(|item| Scan::visit_item(self, item));
                }
                return;
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.module.uses.extend(self.absolute(&parts));
        visit::visit_path(self, path);
    }

    /// A macro whose input is expressions, such as `format!`.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if let Ok(arguments) = item.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            arguments.iter().for_each(|argument| Scan::visit_expr(self, argument));
        }
    }

    /// `pub(super)` and `pub(in path)` use nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let condition = list.tokens.to_string();
                condition == "test" || condition.starts_with("all (test") || condition.starts_with("all(test")
            })
    })
}

/// The module with a file whose item a path names, aliases followed.
pub fn target<'a>(modules: &'a Modules, path: &[String]) -> Option<&'a Vec<String>> {
    let mut path = path.to_vec();
    // More than that many aliases in a row would be a circle of them.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        let (module, item) = path.split_at(length);
        // A module whose file was not read.
        if item.first().is_some_and(|name| modules[module].children.contains(name)) {
            return None;
        }
        let alias = item.first().and_then(|name| modules[module].aliases.get(name));
        let Some(alias) = alias else { return modules.get_key_value(module).map(|(path, _)| path) };
        path = [alias.clone(), item[1..].to_vec()].concat();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_in_macros_too() {
        let module = parse("wire! { pub struct Header { pub kind: u8, } } struct Own;", &[]).expect("Rust");
        assert_eq!(module.types, [("Header".to_owned(), true), ("Own".to_owned(), false)]);
    }
}
