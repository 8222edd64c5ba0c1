/**
 * Whether a process of one machine can run threads and keep pages on another. Pure.
 *
 * A program asks CPUID once, at home, and then uses what it found: a peer must have all of it, and its kernel must
 * have switched on all the register state (XCR0) the home context may carry. More on the peer does no harm.
 * What decides and what does not:
 * - protocol version, page size and architecture must be equal: frames and page numbers mean the same or nothing.
 * - the kernel release need not be equal. System calls are executed at home and no vDSO is mapped in a shell process,
 *   so a guest never sees the peer's kernel; the pager's own needs are met from 6.1 on. Below that it is refused.
 * - the vendor matters only by its features (xsave layouts are standard for each XCR0 bit).
 * - features that describe the machine and not its instructions (topology, virtualisation, mitigations, clocks,
 *   performance) are left out of the comparison: no user program's instruction depends on them.
 */

import type { CompatibilityFacts, Refusal } from './types.js'

/** The oldest kernel that has what the pager uses (that of Debian 12). */
const KERNEL_MIN: readonly [number, number] = [6, 1]
/** Missing features that are listed in a refusal before it says "and n more". */
const LISTED_MAX = 4

/** Names of /proc/cpuinfo that are no instructions of user programs. */
const IRRELEVANT = new Set(
  [
    'acpi aperfmperf apicv aperf arat arch_capabilities arch_lbr arch_perfmon art avic bmec bts bus_lock_detect',
    'cat_l2 cat_l3 cdp_l2 cdp_l3 constant_tsc core_perfctr cpb cpuid cpuid_fault cqm cqm_llc cqm_mbm_local',
    'cqm_mbm_total cqm_occup_llc dca debug_swap decodeassists dtes64 dtherm ds_cpl dts ept ept_ad epb erms est',
    'extapic extd_apicid flexpriority flush_l1d flushbyasid hfi ht hw_pstate hwp hwp_act_window hwp_epp hwp_notify',
    'hwp_pkg_req hypervisor ibpb ibrs ibrs_enhanced ibs ida intel_ppin intel_pt invpcid irperf lam lbrv mba mca mce',
    'md_clear monitor msr mtrr nonstop_tsc nopl npt nrip_save overflow_recov pausefilter pat pbe pcid',
    'pconfig pdcm pdpe1gb perfctr_core perfctr_llc perfctr_nb pebs pfthreshold pge pln pni_topo proc_feedback pse',
    'pse36 pti pts rapl rdt_a rep_good rrsba sev sev_es sev_snp skinit smap smca sme smep split_lock_detect',
    'spec_ctrl_ssbd ss ssbd stibp stibp_always_on succor svm svm_lock tm tm2 tme topoext tpr_shadow tsc_adjust',
    'tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale tsx_force_abort umip user_shstk v_spec_ctrl',
    'v_vmsave_vmload vgif virt_ssbd vmcb_clean vme vmmcall vmx vnmi vpid wdt x2apic x2avic xtopology xtpr',
    'de pae apic sep nx mp cmp_legacy cr8_legacy osvw ssbd amd_ppin',
    'amd_lbr_v2 perfmon_v2 cpuid_perfmon auto_ibrs amd_ibpb amd_ssbd no_nested_data_bp null_seg_clr_base',
    'zen fsrm xsaves',
  ]
    .join(' ')
    .split(' '),
)

export type Compatibility =
  | { readonly kind: 'fits'; readonly warnings: readonly string[] }
  | { readonly kind: 'refused'; readonly refusal: Refusal }

/** Whether `peer` may take part in a process whose home is `home`. */
export function checkCompatibility(home: CompatibilityFacts, peer: CompatibilityFacts): Compatibility {
  const detail = mismatch(home, peer)
  if (detail !== undefined) return { kind: 'refused', refusal: { code: 'incompatible', detail } }
  const warnings = [
    ...(home.cpuVendor === peer.cpuVendor
      ? []
      : [`CPU vendors differ: ${home.cpuVendor}, ${peer.cpuVendor}`]),
    ...(release(home.kernel) === release(peer.kernel)
      ? []
      : [`kernels differ: ${home.kernel}, ${peer.kernel}`]),
  ]
  return { kind: 'fits', warnings }
}

function mismatch(home: CompatibilityFacts, peer: CompatibilityFacts): string | undefined {
  if (home.protocolVersion !== peer.protocolVersion) {
    return `protocol version ${peer.protocolVersion} here, ${home.protocolVersion} at home`
  }
  if (home.arch !== peer.arch) return `architecture ${peer.arch} here, ${home.arch} at home`
  if (home.pageSize !== peer.pageSize) return `page size ${peer.pageSize} here, ${home.pageSize} at home`
  for (const [facts, where] of [
    [peer, 'here'],
    [home, 'at home'],
  ] as const) {
    if (olderThan(facts.kernel, KERNEL_MIN))
      return `kernel ${facts.kernel} ${where}, ${KERNEL_MIN.join('.')} needed`
  }
  const theirs = new Set(peer.cpuFeatures)
  const missing = home.cpuFeatures.filter(name => !theirs.has(name) && !IRRELEVANT.has(name))
  if (missing.length > 0) return `CPU features missing here: ${listed(missing)}`
  const absent = bits(home.xcr0) & ~bits(peer.xcr0)
  if (absent !== 0n) return `register state 0x${absent.toString(16)} (XCR0) is off here`
  return undefined
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, LISTED_MAX).join(' ')
  return names.length > LISTED_MAX ? `${shown} and ${names.length - LISTED_MAX} more` : shown
}

function bits(hex: string): bigint {
  return /^0x[0-9a-fA-F]{1,16}$/.test(hex) ? BigInt(hex) : 0n
}

function release(kernel: string): string {
  return kernel.split('.').slice(0, 2).join('.')
}

/** A kernel whose release cannot be read counts as old: nothing is known about it. */
function olderThan(kernel: string, [major, minor]: readonly [number, number]): boolean {
  const match = /^(\d{1,4})\.(\d{1,4})/.exec(kernel)
  if (match === null) return true
  const [has, hasMinor] = [Number(match[1]), Number(match[2])]
  return has < major || (has === major && hasMinor < minor)
}
