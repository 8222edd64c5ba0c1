// The compatibility facts of this machine as JSON, and the checks' results as JSON. The CPU is asked directly
// (cpuid, xgetbv) and not /proc/cpuinfo: a container may hide or fake that file.
#include "facts.hpp"

#include <cpuid.h>
#include <sys/auxv.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>

#include "util.hpp"
#include "wire.hpp"

namespace elastic {

namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

struct Feature {
  const char* name;
  uint32_t leaf;
  uint32_t subleaf;
  Register where;
  unsigned bit;
  uint64_t state;  // bits of XCR0 that must be on, or user code cannot use it
};

constexpr uint64_t kAvx = 0x6;      // XMM, YMM
constexpr uint64_t kAvx512 = 0xe6;  // and opmask, ZMM
constexpr uint64_t kAmx = 0x60000;  // tile configuration and data
constexpr uint64_t kPkru = 0x200;

// What user code may test for and then use. Names as in /proc/cpuinfo, places as in the Intel SDM volume 2A,
// CPUID.
constexpr Feature kFeatures[] = {
    {"sse3", 1, 0, kEcx, 0, 0},
    {"pclmulqdq", 1, 0, kEcx, 1, 0},
    {"ssse3", 1, 0, kEcx, 9, 0},
    {"fma", 1, 0, kEcx, 12, kAvx},
    {"cx16", 1, 0, kEcx, 13, 0},
    {"sse4_1", 1, 0, kEcx, 19, 0},
    {"sse4_2", 1, 0, kEcx, 20, 0},
    {"movbe", 1, 0, kEcx, 22, 0},
    {"popcnt", 1, 0, kEcx, 23, 0},
    {"aes", 1, 0, kEcx, 25, 0},
    {"xsave", 1, 0, kEcx, 26, 0},
    {"osxsave", 1, 0, kEcx, 27, 0},
    {"avx", 1, 0, kEcx, 28, kAvx},
    {"f16c", 1, 0, kEcx, 29, kAvx},
    {"rdrand", 1, 0, kEcx, 30, 0},
    {"clflush", 1, 0, kEdx, 19, 0},
    {"bmi1", 7, 0, kEbx, 3, 0},
    {"hle", 7, 0, kEbx, 4, 0},
    {"avx2", 7, 0, kEbx, 5, kAvx},
    {"bmi2", 7, 0, kEbx, 8, 0},
    {"erms", 7, 0, kEbx, 9, 0},
    {"rtm", 7, 0, kEbx, 11, 0},
    {"avx512f", 7, 0, kEbx, 16, kAvx512},
    {"avx512dq", 7, 0, kEbx, 17, kAvx512},
    {"rdseed", 7, 0, kEbx, 18, 0},
    {"adx", 7, 0, kEbx, 19, 0},
    {"avx512ifma", 7, 0, kEbx, 21, kAvx512},
    {"clflushopt", 7, 0, kEbx, 23, 0},
    {"clwb", 7, 0, kEbx, 24, 0},
    {"avx512pf", 7, 0, kEbx, 26, kAvx512},
    {"avx512er", 7, 0, kEbx, 27, kAvx512},
    {"avx512cd", 7, 0, kEbx, 28, kAvx512},
    {"sha_ni", 7, 0, kEbx, 29, 0},
    {"avx512bw", 7, 0, kEbx, 30, kAvx512},
    {"avx512vl", 7, 0, kEbx, 31, kAvx512},
    {"avx512vbmi", 7, 0, kEcx, 1, kAvx512},
    {"ospke", 7, 0, kEcx, 4, kPkru},
    {"waitpkg", 7, 0, kEcx, 5, 0},
    {"avx512_vbmi2", 7, 0, kEcx, 6, kAvx512},
    {"gfni", 7, 0, kEcx, 8, 0},
    {"vaes", 7, 0, kEcx, 9, kAvx},
    {"vpclmulqdq", 7, 0, kEcx, 10, kAvx},
    {"avx512_vnni", 7, 0, kEcx, 11, kAvx512},
    {"avx512_bitalg", 7, 0, kEcx, 12, kAvx512},
    {"avx512_vpopcntdq", 7, 0, kEcx, 14, kAvx512},
    {"la57", 7, 0, kEcx, 16, 0},
    {"rdpid", 7, 0, kEcx, 22, 0},
    {"cldemote", 7, 0, kEcx, 25, 0},
    {"movdiri", 7, 0, kEcx, 27, 0},
    {"movdir64b", 7, 0, kEcx, 28, 0},
    {"avx512_4vnniw", 7, 0, kEdx, 2, kAvx512},
    {"avx512_4fmaps", 7, 0, kEdx, 3, kAvx512},
    {"fsrm", 7, 0, kEdx, 4, 0},
    {"avx512_vp2intersect", 7, 0, kEdx, 8, kAvx512},
    {"serialize", 7, 0, kEdx, 14, 0},
    {"amx_bf16", 7, 0, kEdx, 22, kAmx},
    {"avx512_fp16", 7, 0, kEdx, 23, kAvx512},
    {"amx_tile", 7, 0, kEdx, 24, kAmx},
    {"amx_int8", 7, 0, kEdx, 25, kAmx},
    {"sha512", 7, 1, kEax, 0, kAvx},
    {"sm3", 7, 1, kEax, 1, kAvx},
    {"sm4", 7, 1, kEax, 2, kAvx},
    {"avx_vnni", 7, 1, kEax, 4, kAvx},
    {"avx512_bf16", 7, 1, kEax, 5, kAvx512},
    {"cmpccxadd", 7, 1, kEax, 7, 0},
    {"fzrm", 7, 1, kEax, 10, 0},
    {"fsrs", 7, 1, kEax, 11, 0},
    {"fsrc", 7, 1, kEax, 12, 0},
    {"amx_fp16", 7, 1, kEax, 21, kAmx},
    {"avx_ifma", 7, 1, kEax, 23, kAvx},
    {"avx_vnni_int8", 7, 1, kEdx, 4, kAvx},
    {"avx_ne_convert", 7, 1, kEdx, 5, kAvx},
    {"amx_complex", 7, 1, kEdx, 8, kAmx},
    {"avx_vnni_int16", 7, 1, kEdx, 10, kAvx},
    {"avx10", 7, 1, kEdx, 19, kAvx512},
    {"xsaveopt", 0xd, 1, kEax, 0, 0},
    {"xsavec", 0xd, 1, kEax, 1, 0},
    {"xgetbv1", 0xd, 1, kEax, 2, 0},
    {"xsaves", 0xd, 1, kEax, 3, 0},
    {"lahf_lm", 0x80000001, 0, kEcx, 0, 0},
    {"abm", 0x80000001, 0, kEcx, 5, 0},
    {"sse4a", 0x80000001, 0, kEcx, 6, 0},
    {"3dnowprefetch", 0x80000001, 0, kEcx, 8, 0},
    {"xop", 0x80000001, 0, kEcx, 11, kAvx},
    {"fma4", 0x80000001, 0, kEcx, 16, kAvx},
    {"tbm", 0x80000001, 0, kEcx, 21, 0},
    {"mwaitx", 0x80000001, 0, kEcx, 29, 0},
    {"rdtscp", 0x80000001, 0, kEdx, 27, 0},
    {"nonstop_tsc", 0x80000007, 0, kEdx, 8, 0},
    {"clzero", 0x80000008, 0, kEbx, 0, 0},
    {"rdpru", 0x80000008, 0, kEbx, 4, 0},
};

constexpr unsigned long kHwcap2Fsgsbase = 2;  // HWCAP2_FSGSBASE: the kernel lets user code use it

// False: the CPU has no such leaf or subleaf (an undefined leaf would answer with another one's bits).
bool ask(uint32_t leaf, uint32_t subleaf, uint32_t (&out)[4]) {
  if (static_cast<uint32_t>(__get_cpuid_max(leaf & 0x80000000, nullptr)) < leaf) return false;
  if (leaf == 7 && subleaf > 0) {
    __cpuid_count(7, 0, out[kEax], out[kEbx], out[kEcx], out[kEdx]);
    if (out[kEax] < subleaf) return false;
  }
  __cpuid_count(leaf, subleaf, out[kEax], out[kEbx], out[kEcx], out[kEdx]);
  return true;
}

uint64_t read_xcr0() {
  uint32_t bits[4];
  if (!ask(1, 0, bits) || (bits[kEcx] >> 27 & 1) == 0)
    return 0;  // OSXSAVE: xgetbv would be an illegal instruction
  uint32_t low;
  uint32_t high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

std::string cpu_vendor() {
  uint32_t bits[4] = {};
  if (!ask(0, 0, bits)) return {};
  char name[12];
  std::memcpy(name, &bits[kEbx], 4);
  std::memcpy(name + 4, &bits[kEdx], 4);
  std::memcpy(name + 8, &bits[kEcx], 4);
  return std::string(name, sizeof name);
}

std::string features_json(uint64_t xcr0) {
  std::string names;
  const auto add = [&names](const char* name) { names += (names.empty() ? "" : ",") + json_quote(name); };
  for (const Feature& feature : kFeatures) {
    uint32_t bits[4] = {};
    if (!ask(feature.leaf, feature.subleaf, bits)) continue;
    if ((bits[feature.where] >> feature.bit & 1) != 0 && (xcr0 & feature.state) == feature.state)
      add(feature.name);
  }
  if ((getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) != 0) add("fsgsbase");
  return "[" + names + "]";
}

}  // namespace

std::string facts_json() {
  utsname system{};
  uname(&system);
  const uint64_t xcr0 = read_xcr0();
  return "{\"protocolVersion\":" + std::to_string(kProtocolVersion) +
         ",\"arch\":" + json_quote(system.machine) +
         ",\"pageSize\":" + std::to_string(sysconf(_SC_PAGESIZE)) +
         ",\"kernel\":" + json_quote(system.release) + ",\"cpuVendor\":" + json_quote(cpu_vendor()) +
         ",\"cpuFeatures\":" + features_json(xcr0) +
         ",\"xcr0\":" + json_quote(format("0x%llx", static_cast<unsigned long long>(xcr0))) + "}";
}

std::string checks_json(const std::vector<Check>& checks) {
  std::string out = "[";
  for (const Check& check : checks) {
    if (out.size() > 1) out += ",";
    out += "{\"name\":" + json_quote(check.name) + ",\"ok\":" + (check.ok ? "true" : "false") +
           ",\"needed\":" + (check.needed ? "true" : "false") + ",\"detail\":" + json_quote(check.detail) +
           ",\"remedy\":" + json_quote(check.remedy) + "}";
  }
  return out + "]";
}

}  // namespace elastic
