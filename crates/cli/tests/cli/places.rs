//! Errors that are known only when a task runs, told at the place in the source that has to be changed.

use crate::project::Project;

/// What is said of the task `one`, down to its hint.
fn told(project: &Project) -> String {
    let outcome = project.backstop(&["run", "d", "--new"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let lines = outcome.stderr.lines().skip_while(|line| !line.starts_with("✗ one failed")).skip(1);
    lines.take_while(|line| !line.trim_start().starts_with("log:")).map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn placeholders_that_do_not_fit_together_are_told_at_their_statement() {
    let script = "SELECT {{ 1 }};\n      SELECT 2;\n      SELECT :a,\n        ?\n";
    let project = Project::with_tasks(&format!("  one:\n    parameters: {{a: 1}}\n    sql: |\n      {script}"));
    insta::assert_snapshot!(told(&project), @r#"
    read the script: `?` has no value
    at: dags/d.yaml:10:9
    effect: nothing was sent
    hint: values have names, with a colon: write `:name`, and give `name` a value in `parameters`
    "#);
    let project = Project::with_tasks(
        "  one:\n    check:\n      sql: |\n        SELECT {{ 1 }};\n        SELECT 2; SELECT :a, ?\n      parameters: {a: 1}\n",
    );
    insta::assert_snapshot!(told(&project), @r#"
    read the query: `?` has no value
    at: dags/d.yaml:8:30
    effect: nothing was sent
    hint: values have names, with a colon: write `:name`, and give `name` a value in `parameters`
    "#);
}

#[test]
fn a_parameter_that_cannot_be_rendered_is_told_at_its_key() {
    let wrong = "parameters:\n        a: 1\n        day: \"{{ 'x' - 1 }}\"";
    for task in [
        format!("  one:\n    sql: SELECT :a, :day\n    {}\n", wrong.replace("\n        ", "\n      ")),
        format!("  one:\n    check:\n      sql: SELECT :a, :day\n      {wrong}\n"),
        format!("  one:\n    sensor:\n      sql: SELECT :a, :day\n      {wrong}\n"),
        format!("  one:\n    sql: SELECT 1\n    for_each:\n      sql: SELECT :a, :day\n      {wrong}\n"),
        format!(
            "  one:\n    branch:\n      sql: SELECT :a, :day\n      if_true: [end]\n      {wrong}\n  end: {{empty: true, after: [one]}}\n"
        ),
    ] {
        let project = Project::with_tasks(&task);
        let source = std::fs::read_to_string(project.path().join("dags/d.yaml")).unwrap();
        let (before, _) = source.split_once("day: ").unwrap();
        let place = format!("dags/d.yaml:{}:{}", before.lines().count(), before.lines().last().unwrap().len() + 1);
        let told = told(&project);
        assert!(told.contains(&place) && told.contains("render the parameter `day`: "), "{place}\n{told}");
    }
}

#[test]
fn a_parameter_of_a_callback_is_told_at_its_key() {
    let project = Project::with_tasks(
        "  one:\n    sql: SELECT * FROM missing\n    on_failure:\n      - sql: SELECT :day\n        parameters:\n          day: \"{{ 'x' - 1 }}\"\n",
    );
    let outcome = project.backstop(&["run", "d"]);
    assert!(outcome.stderr.contains("dags/d.yaml:9:11"), "{}", outcome.stderr);
}
