//! `backstop init`: a small project that runs at once.

use crate::args::InitArgs;
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::shell_word;
use backstop_project::format;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

/// Path and text of each file.
const FILES: &[(&str, &str)] = &[
    ("backstop.yaml", include_str!("../templates/init/backstop.yaml")),
    ("dags/hello.yaml", include_str!("../templates/init/hello.yaml")),
    ("sql/setup.sql", include_str!("../templates/init/setup.sql")),
    ("sql/load.sql", include_str!("../templates/init/load.sql")),
    (".gitignore", include_str!("../templates/init/gitignore")),
];

/// The folder of the schemas that editors read: kept with the project, so that whoever checks it out has them. Its name begins with a dot,
/// as `schema` is where a project of SQL scripts would look for tables.
const SCHEMAS: &str = ".schema";

/// In the template of backstop.yaml.
const NAME: &str = "name: PROJECT\n";
/// Characters of a project's name.
const NAME_CHARACTERS_MAX: usize = 64;
/// What YAML would not take for a text.
const NO_TEXTS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// A project is called as its folder: a service may have several, and tells them apart by their names.
fn project_name(folder: &Path) -> String {
    let whole = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let kept =
        name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' }).take(NAME_CHARACTERS_MAX);
    let kept: String = kept.collect();
    match kept.trim_matches(['-', '.']) {
        "" => "project".to_owned(),
        name if name.starts_with(char::is_alphabetic) && !NO_TEXTS.contains(&&*name.to_lowercase()) => name.to_owned(),
        name => format!("\"{name}\""),
    }
}

/// Writes a project.
pub(crate) fn init(arguments: &InitArgs) -> Result<Exit, Problem> {
    let folder = &arguments.folder;
    refuse_full(folder, arguments.force)?;
    std::fs::create_dir_all(folder).map_err(|error| Problem::system(format!("make the folder {}", folder.display()), &error))?;
    let name = project_name(folder);
    let mut kept = Vec::new();
    let schemas = [("backstop.schema.json", format::project_schema()), ("dag.schema.json", format::dag_schema())];
    let schemas = schemas.map(|(name, schema)| (format!("{SCHEMAS}/{name}"), format!("{schema:#}\n")));
    let files =
        FILES.iter().map(|(path, text)| ((*path).to_owned(), text.replace(NAME, &format!("name: {name}\n")))).chain(schemas);
    for (path, text) in files {
        if !write_new(&folder.join(&path), &text)? {
            kept.push(path);
        }
    }
    for path in kept {
        output::note(&format!("{path} was there already and stays as it is"));
    }
    let paint = Painter::stderr();
    let shown = folder.display();
    let go = if folder == Path::new(".") { String::new() } else { format!("  cd {}\n", shell_word(&folder.to_string_lossy())) };
    output::tell(&format!(
        "{} a project in {shown}: one DAG, `hello`, on an SQLite database of its own. Next:\n{go}  backstop check\n  backstop run hello\n",
        paint.good("✓")
    ));
    Ok(Exit::Success)
}

fn refuse_full(folder: &Path, force: bool) -> Result<(), Problem> {
    let failed = |error: &std::io::Error| Problem::system(format!("open the folder {}", folder.display()), error);
    match std::fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            Some(_) if !force => Err(Problem::usage(format!("the folder {} is not empty", folder.display()))
                .hint("name a new folder, or add --force: files that are there stay as they are")),
            Some(_) | None => Ok(()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&error)),
    }
}

/// Writes a file; false when there is one.
fn write_new(path: &Path, text: &str) -> Result<bool, Problem> {
    let failed = |error: &std::io::Error| Problem::system(format!("write {}", path.display()), error);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true).map_err(|error| failed(&error)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(&error)),
    }
}
