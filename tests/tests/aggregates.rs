//! Figures through the real command line: counted where they are written and above, as a table, as JSON, as files; a
//! wrong question is told what is wrong; a recount agrees.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong_tests::harness::{Fleet, division, until};

const COUNTY: &str = "220822";
const TOWNSHIP: &str = "220822101";

const CASES: &str = "\
事件编号,所属区划,事件类型,事件类别,来源渠道,标题,受理日期,状态,是否成功,办结日期
1,220822101000,矛盾纠纷,邻里,来访,甲,2025-10-03,结案,是,2025-10-09
2,220822101000,矛盾纠纷,土地,来访,乙,2025-10-21,结案,否,2025-11-02
3,220822101000,网格事件,环境,网格员,丙,2025-11-05,办理中,,
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_from_the_command_line() {
    let county = division(COUNTY);
    let fleet = Fleet::start([NodeSpec::top(county), NodeSpec::below(county, division(TOWNSHIP))]).await;
    let file = fleet.file("cases.csv", CASES);
    fleet.cli(TOWNSHIP, &["import", "--kind", "case", &file, "--source", "office"]).await.exits(0);
    let query = ["aggregates", "cases_received", "success_rate", "--period", "2025-10", "--json"];
    until("the county counts them", async || {
        let answer = fleet.cli(COUNTY, &query).await.exits(0).json();
        answer["figures"][0]["value"] == 2.0
    })
    .await;
    let answer = fleet.cli(COUNTY, &query).await.exits(0).json();
    let rate = &answer["figures"][1];
    assert_eq!((&rate["numerator"], &rate["denominator"]), (&1.into(), &1.into()), "{answer:#}");
    assert_eq!(rate["basis"], "concluded in the period");

    let args = [
        "aggregates",
        "cases_received",
        "--period",
        "2025-11",
        "--within",
        COUNTY,
        "--compare",
        "pop",
        "--rank",
    ];
    fleet.cli(COUNTY, &args).await.exits(0).shows(&["事件登记数", "2025年11月", "-50.0 %", "排名"]);
    let args = ["aggregates", "cases_received", "--period", "2025", "--by", "kind"];
    fleet.cli(TOWNSHIP, &args).await.exits(0).shows(&["矛盾纠纷", "网格事件"]);
    fleet.cli(COUNTY, &["aggregates", "--list"]).await.exits(0).shows(&[
        "success_rate",
        "调处成功率",
        "category",
    ]);

    let out = fleet.path("figures.csv");
    let out = out.to_str().unwrap();
    let args = ["aggregates", "cases_open", "--period", "2025-10", "--export", "csv", "--out", out];
    fleet.cli(COUNTY, &args).await.exits(0);
    let csv = std::fs::read_to_string(out).unwrap();
    assert!(
        csv.contains("220822000000,通榆县,cases_open,期末未结数,件,,,2025-10,2025-10-01,2025-10-31,true,1,"),
        "{csv}"
    );

    fleet.cli(COUNTY, &["recount"]).await.exits(0).shows(&["统计数与记录一致"]);
    wrong_questions(&fleet).await;
}

async fn wrong_questions(fleet: &Fleet) {
    let ask = async |args: &[&str]| fleet.cli(COUNTY, &[&["aggregates"], args].concat()).await.exits(1);
    ask(&["case_received", "--period", "2025"]).await.says(&["did you mean cases_received?", "指标不存在"]);
    ask(&["grids", "--period", "2025", "--by", "category"]).await.says(&["grids is not kept by category"]);
    ask(&["grids", "--period", "2025", "--division", "2208"]).await.says(&["lies outside 220822000000"]);
    let reversed = fleet.cli(COUNTY, &["aggregates", "grids", "--period", "2025-03-01..2025-01-01"]).await;
    reversed.exits(2).says(&["the period ends on 2025-01-01, before it begins"]);
}
