"""The look of `report.html`: one sheet for light, dark and paper, without anything fetched."""

from __future__ import annotations

STYLE = """
:root{--ink:#16211f;--soft:#566663;--line:#d9e2e0;--page:#fbfcfb;--card:#fff;--wash:#f1f5f4;--accent:#0b6b62;
--bad:#a3005c;
--warn:#8a5a00;--t0:#dcefed;--t1:#b4ddd8;--t2:#86c6bf;--t3:#54aaa2;--t4:#2b8c84;--t5:#126d66;--t6:#044b46;
--fail:#d6249f;
--h0:#eef1f0;--h1:#c6d0ce;--cross:#fff;
--s0:#2b8c84;--s1:#c1762c;--s2:#5a6fc0;--s3:#a9508f;--s4:#7d8f35;--s5:#7a7f86;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e6eeec;--soft:#9fb0ad;--line:#2c3a38;--page:#101716;
--card:#17201f;--wash:#1d2827;
--accent:#63c9bd;--bad:#ff86c8;--warn:#f0bd62;--t0:#14322f;--t1:#1b4a46;--t2:#22655f;--t3:#2d837b;--t4:#47a59c;
--t5:#74c7bf;
--t6:#b4e8e2;--h0:#202b2a;--h1:#3c4b49;--cross:#200018;--fail:#ff5fc0;
--s0:#47a59c;--s1:#d9924c;--s2:#8698e0;--s3:#cc78b3;--s4:#a3b657;--s5:#9aa1a8}}
*{box-sizing:border-box}
html{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Liberation Sans",
sans-serif;color:var(--ink);
background:var(--page);-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:1120px;padding:0 28px 64px}
h1,h2,h3,h4{line-height:1.2;letter-spacing:-.012em;margin:0;text-wrap:balance}
h1{font-size:2.3rem;font-weight:700}
h2{font-size:1.4rem;font-weight:650;margin:46px 0 14px;padding-top:18px;border-top:1px solid var(--line)}
h3{font-size:1.15rem;font-weight:650}
h4{font-size:.78rem;font-weight:650;text-transform:uppercase;letter-spacing:.07em;color:var(--soft);
margin:26px 0 10px}
p{margin:.5em 0;max-width:74ch}
a{color:var(--accent)}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.86em;
overflow-wrap:anywhere}
code{background:var(--wash);padding:.1em .35em;border-radius:4px}
header{padding:44px 0 4px}
.brand{display:flex;gap:10px;align-items:center;color:var(--soft);font-size:.85rem;margin-bottom:14px}
.brand svg{width:22px;height:22px}
.lead{font-size:1.12rem;max-width:72ch;margin:.7em 0 0}
.quiet{color:var(--soft);font-size:.87rem}
.state{display:inline-block;font-size:.8rem;font-weight:600;padding:.12em .7em;border-radius:99px;
border:1px solid currentColor;
white-space:nowrap;vertical-align:middle}
.complete{color:var(--accent)}.bad{color:var(--bad)}.open{color:var(--warn)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:28px 0 8px;
padding:0;list-style:none}
.figures li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.figures b{display:block;font-size:1.6rem;font-weight:650;letter-spacing:-.02em;line-height:1.2;
font-variant-numeric:tabular-nums}
.figures span{color:var(--soft);font-size:.85rem}
.bar{display:flex;height:26px;border-radius:6px;overflow:hidden;gap:1px;background:var(--wash)}
.bar span{min-width:1px;height:100%}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;margin:9px 0 0;padding:0;font-size:.85rem;
color:var(--soft)}
.legend li{display:flex;align-items:center;gap:7px}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.legend i{width:13px;height:13px;border-radius:3px;display:inline-block;box-shadow:inset 0 0 0 1px #0002}
.legend .scale{gap:0}.legend .scale i{border-radius:0;width:16px}.legend .scale i:first-of-type{margin-left:6px}
.legend .scale i:last-of-type{margin-right:6px}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:.87rem;padding-bottom:8px}
th,td{padding:.42em .8em .42em 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:baseline}
th{font-weight:600}tbody th{font-weight:550}td.n+td:not(.n),th.n+th:not(.n){padding-left:1.6em}
thead th{color:var(--soft);font-size:.82rem}
td.n,th.n{text-align:right}tr:last-child>*{border-bottom:0}
td:last-child,th:last-child{padding-right:0}
td i,th i{width:13px;height:13px;border-radius:3px;display:inline-block;margin-right:8px;vertical-align:-1px;
box-shadow:inset 0 0 0 1px #0002}
.wide{overflow-x:auto}
article{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px 24px 24px;margin:18px 0}
article>header{padding:0;display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,380px),1fr));gap:6px 36px;align-items:start}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:10px;margin:18px 0 0}
.pair.tall{grid-template-columns:1fr}
figure{margin:0}figure img{width:100%;display:block;border-radius:6px;
background:repeating-conic-gradient(var(--wash) 0 25%,var(--card) 0 50%) 0 0/16px 16px}
figcaption{font-size:.82rem;color:var(--soft);margin-top:5px}
.missing{background:var(--wash);border-radius:6px;padding:26px 16px;color:var(--soft);font-size:.87rem}
svg{display:block;width:100%}
svg.map{max-height:300px;width:auto;max-width:100%}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.t0{fill:var(--t0);background:var(--t0)}.t1{fill:var(--t1);background:var(--t1)}.t2{fill:var(--t2);
background:var(--t2)}
.t3{fill:var(--t3);background:var(--t3)}.t4{fill:var(--t4);background:var(--t4)}.t5{fill:var(--t5);
background:var(--t5)}
.t6{fill:var(--t6);background:var(--t6)}
.failed{fill:var(--fail);background:var(--fail)}.h0{fill:var(--h0)}.h1{fill:var(--h1)}
svg .skipped{fill:url(#hatch)}
i.skipped{background:repeating-linear-gradient(45deg,var(--h1) 0 2px,var(--h0) 2px 5px)}
.left{fill:none;stroke:var(--line);stroke-width:1;background:transparent}
i.left{box-shadow:inset 0 0 0 1px var(--h1)}
.cross{stroke:var(--cross);stroke-width:2;fill:none;vector-effect:non-scaling-stroke}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}.s5{fill:var(--s5)}
i.s0{background:var(--s0)}i.s1{background:var(--s1)}i.s2{background:var(--s2)}i.s3{background:var(--s3)}
i.s4{background:var(--s4)}
i.s5{background:var(--s5)}
.lane{fill:var(--wash)}.cut{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3;vector-effect:non-scaling-stroke}
.lanes{display:grid;grid-template-columns:minmax(70px,max-content) 1fr;gap:12px}
.lanes ul{list-style:none;margin:0;padding:0;display:flex;flex-direction:column;font-size:.78rem;color:var(--soft)}
.lanes li{display:flex;align-items:center;white-space:nowrap;min-height:0;line-height:1}
dl{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:5px 22px;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--wash);border-radius:8px;padding:12px 14px;overflow-x:auto;margin:.6em 0;font-size:.87rem;
white-space:pre-wrap}
details summary{cursor:pointer;color:var(--accent);font-size:.9rem}
footer{margin-top:56px;border-top:1px solid var(--line);padding-top:14px;color:var(--soft);font-size:.85rem}
@media (max-width:640px){body{padding:0 16px 40px}h1{font-size:1.8rem}article{padding:16px}
.pair{grid-template-columns:1fr}}
@media print{:root{--page:#fff}html{font-size:11px}body{max-width:none;padding:0}
article,figure,tr,.figures li{break-inside:avoid}
h2,h3,h4{break-after:avoid}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}details{display:block}}
"""

LOGO = (
    '<svg viewBox="0 0 22 22" aria-hidden="true"><g stroke="none"><rect class="t2" width="10" height="10" rx="2"/>'
    '<rect class="t4" x="12" width="10" height="10" rx="2"/><rect class="t5" y="12" width="10" height="10" rx="2"/>'
    '<rect class="t3" x="12" y="12" width="10" height="10" rx="2"/></g></svg>'
)
