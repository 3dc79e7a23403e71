#include "daemon/page.h"

namespace tally {

// Reads /metrics (text) and /v1/top every two seconds and shows decisions, the busiest keys, peers and the table. All text goes in by
// textContent.
const std::string_view kPage = R"page(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tallyd</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.3rem}h2{font-size:1rem;margin-top:1.6rem}
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.2rem .6rem;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}th{font-weight:600}#state{font-weight:400;color:#666}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#333}}
</style></head><body>
<h1>tallyd <span id="state">loading</span></h1>
<h2>Decisions</h2><table id="rules"></table>
<h2>Busiest keys</h2><table id="top"></table>
<h2>Peers</h2><table id="peers"></table>
<h2>Table</h2><table id="table"></table>
<p><a href="metrics">metrics</a> <a href="healthz">healthz</a> <a href="readyz">readyz</a></p>
<script>
"use strict";
function parse(text){
  const out=[];
  for(const line of text.split("\n")){
    const m=/^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if(!m)continue;
    const labels={};
    for(const l of (m[2]||"").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g))labels[l[1]]=l[2].replace(/\\(.)/g,"$1");
    out.push({name:m[1],labels,value:Number(m[3])});
  }
  return out;
}
function fill(id,rows){
  const table=document.getElementById(id);table.textContent="";
  rows.forEach((row,i)=>{const tr=table.insertRow();
    row.forEach(cell=>{const td=document.createElement(i?"td":"th");td.textContent=cell;tr.append(td);});});
}
function group(metrics,name,key,column){
  const rows=new Map();
  for(const m of metrics)if(m.name===name){
    if(!rows.has(m.labels[key]))rows.set(m.labels[key],{});
    rows.get(m.labels[key])[column?m.labels[column]:name]=m.value;}
  return rows;
}
async function refresh(){
  const state=document.getElementById("state");
  try{
    const [text,ready,top]=await Promise.all([fetch("metrics").then(r=>r.text()),fetch("readyz"),fetch("v1/top").then(r=>r.json())]);
    const all=parse(text),sum=n=>all.filter(m=>m.name===n).reduce((s,m)=>s+m.value,0);
    const version=((all.find(m=>m.name==="tallyd_build_info")||{}).labels||{}).version;
    state.textContent=version+(ready.ok?", ready":", not ready");
    const outcomes=["admitted","limited","no_grant","isolated","shadow_limited"];
    const rules=group(all,"tallyd_decisions_total","rule","outcome");
    fill("rules",[["rule",...outcomes],...[...rules].filter(([r])=>r).map(([r,v])=>[r,...outcomes.map(o=>v[o]??0)])]);
    const rate=n=>(n*1000/Math.max(top.span_ms,1)).toFixed(1);
    fill("top",[["key","rule","admitted/s","limited/s"],...top.keys.map(k=>[k.key,k.rule,rate(k.admitted),rate(k.limited)])]);
    const up=group(all,"tallyd_peer_up","peer"),trip=group(all,"tallyd_peer_round_trip_seconds","peer"),
      heard=group(all,"tallyd_peer_last_heard_seconds","peer");
    const ms=v=>v===undefined?"-":(v*1000).toFixed(2);
    fill("peers",[["peer","up","round trip ms","last heard ms"],...[...up].map(([p,v])=>[p,v.tallyd_peer_up?"yes":"no",
      ms((trip.get(p)||{}).tallyd_peer_round_trip_seconds),ms((heard.get(p)||{}).tallyd_peer_last_heard_seconds)])]);
    fill("table",[["keys","capacity","connections","waiting"],
      [sum("tallyd_keys"),sum("tallyd_keys_capacity"),sum("tallyd_connections"),sum("tallyd_waiting_requests")]]);
  }catch(e){state.textContent="cannot be reached";}
}
refresh();setInterval(refresh,2000);
</script></body></html>
)page";

}  // namespace tally
