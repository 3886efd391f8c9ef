// Agreement with the thin-provisioning-tools: metadata that they make are read as they read them,
// and what they find in metadata of ours, whose trees share nodes (which thin_restore never makes),
// is what we find.
#include <fstream>
#include <random>
#include <regex>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "sys/process.h"
#include "thinmeta/test_image.h"
#include "thinmeta/test_tree.h"

namespace convoy::thinmeta {
namespace {

constexpr std::chrono::seconds kTimeout{60};

struct Device {
  Mappings mappings;
  DeviceDetails details;
};
using Devices = std::map<std::uint32_t, Device>;

// What the program prints; run_command alone keeps only the end of it.
std::string output_of(const std::string& command) {
  const TestFile output(0, Place::kDisk);
  run_command({"sh", "-c", fmt::format("PATH=$PATH:/usr/sbin; {} > {}", command, output.path())},
              kTimeout);
  std::ostringstream text;
  text << std::ifstream(output.path()).rdbuf();
  return text.str();
}

// Calls visit(element name, attributes) for each start tag.
template <typename Visit>
void for_each_element(const std::string& xml, Visit&& visit) {
  static const std::regex element(R"(<(\w+)([^>]*)>)");
  static const std::regex attribute(R"re((\w+)="(\d*)")re");
  for (auto it = std::sregex_iterator(xml.begin(), xml.end(), element);
       it != std::sregex_iterator(); ++it) {
    std::map<std::string, std::uint64_t> attributes;
    const std::string text = (*it)[2];
    for (auto found = std::sregex_iterator(text.begin(), text.end(), attribute);
         found != std::sregex_iterator(); ++found) {
      if ((*found)[2].length() > 0) attributes[(*found)[1]] = std::stoull((*found)[2]);
    }
    visit((*it)[1].str(), attributes);
  }
}

std::vector<DeltaRange> thin_delta(const std::string& path, std::uint32_t first,
                                   std::uint32_t second) {
  const std::map<std::string, Change> changes = {{"left_only", Change::kRemoved},
                                                 {"right_only", Change::kAdded},
                                                 {"different", Change::kDifferent}};
  std::vector<DeltaRange> ranges;
  for_each_element(
      output_of(fmt::format("thin_delta --thin1 {} --thin2 {} {}", first, second, path)),
      [&](const std::string& name, auto& attributes) {
        if (!changes.contains(name)) return;
        const std::uint64_t begin = attributes.at("begin");
        ranges.push_back({{begin}, {begin + attributes.at("length")}, changes.at(name)});
      });
  return ranges;
}

Devices thin_dump(const std::string& path) {
  Devices devices;
  Device* device = nullptr;
  for_each_element(output_of("thin_dump " + path), [&](const std::string& name, auto& attributes) {
    if (name == "device") {
      device = &devices[static_cast<std::uint32_t>(attributes.at("dev_id"))];
      device->details = {
          .mapped_blocks = attributes.at("mapped_blocks"),
          .transaction_id = attributes.at("transaction"),
          .creation_time = static_cast<std::uint32_t>(attributes.at("creation_time")),
          .snapshotted_time = static_cast<std::uint32_t>(attributes.at("snap_time"))};
    } else if (name == "range_mapping") {
      for (std::uint64_t i = 0; i < attributes.at("length"); ++i) {
        device->mappings[attributes.at("origin_begin") + i] = mapping(
            attributes.at("data_begin") + i, static_cast<std::uint32_t>(attributes.at("time")));
      }
    } else if (name == "single_mapping") {
      device->mappings[attributes.at("origin_block")] =
          mapping(attributes.at("data_block"), static_cast<std::uint32_t>(attributes.at("time")));
    }
  });
  return devices;
}

TestFile thin_restore(const Devices& devices) {
  std::string xml = fmt::format(
      "<superblock uuid=\"\" time=\"5\" transaction=\"6\" data_block_size=\"1024\" "
      "nr_data_blocks=\"{}\">\n",
      TestImage::kDataBlocks);
  for (const auto& [thin_id, device] : devices) {
    const DeviceDetails& details = device.details;
    xml += fmt::format(
        "<device dev_id=\"{}\" mapped_blocks=\"{}\" transaction=\"{}\" creation_time=\"{}\" "
        "snap_time=\"{}\">\n",
        thin_id, details.mapped_blocks, details.transaction_id, details.creation_time,
        details.snapshotted_time);
    for (const auto& [block, value] : device.mappings) {
      xml += fmt::format("<single_mapping origin_block=\"{}\" data_block=\"{}\" time=\"{}\"/>\n",
                         block, value >> kMappingTimeBits, value & ((1U << kMappingTimeBits) - 1));
    }
    xml += "</device>\n";
  }
  xml += "</superblock>\n";
  TestFile input(0, Place::kDisk);
  input.write(0, as_bytes(xml));
  TestFile metadata(8 * kMiB, Place::kDisk);
  output_of(fmt::format("thin_restore -i {} -o {}", input.path(), metadata.path()));
  return metadata;
}

// Snapshots of a volume that somebody writes to, none of them empty: thin_delta reads beyond its
// own arrays then.
Devices random_snapshots(std::mt19937_64& random, std::uint64_t device_blocks) {
  Devices devices;
  Mappings mappings = {{0, mapping(0)}};
  std::uint64_t next_data_block = 1;
  for (std::uint32_t snapshot = 1; snapshot <= 4; ++snapshot) {
    change_randomly(mappings, device_blocks, next_data_block, snapshot, random);
    mappings.try_emplace(device_blocks, mapping(next_data_block++));
    devices[snapshot * 1000] = {mappings,
                                {.mapped_blocks = mappings.size(),
                                 .transaction_id = random() >> 1U,
                                 .creation_time = snapshot,
                                 .snapshotted_time = snapshot}};
  }
  return devices;
}

void expect_the_tools_findings(const TestFile& file, const Devices& devices) {
  Metadata metadata(file.open(), Root::kLive);
  const Devices dumped = thin_dump(file.path());
  ASSERT_EQ(dumped.size(), devices.size());
  std::vector<std::pair<std::uint32_t, DeviceDetails>> details;
  for (const auto& [thin_id, device] : dumped) {
    details.emplace_back(thin_id, device.details);
    EXPECT_EQ(device.mappings, devices.at(thin_id).mappings);  // else the test itself is wrong
    EXPECT_EQ(delta_of(metadata, std::nullopt, thin_id), expected_delta({}, device.mappings));
  }
  EXPECT_EQ(metadata.devices(), details);
  for (const auto& [first, first_device] : devices) {
    for (const auto& [second, second_device] : devices) {
      if (first >= second) continue;
      SCOPED_TRACE(testing::Message() << "devices " << first << " and " << second);
      const std::vector<DeltaRange> delta = delta_of(metadata, first, second);
      EXPECT_EQ(delta, thin_delta(file.path(), first, second));
      EXPECT_EQ(delta, expected_delta(first_device.mappings, second_device.mappings));
    }
  }
}

class Tools : public testing::TestWithParam<unsigned> {};

TEST_P(Tools, FindTheSameInWhatThinRestoreWrites) {
  std::mt19937_64 random(GetParam());
  const Devices devices = random_snapshots(random, GetParam() % 2 == 0 ? 200 : 20'000);
  expect_the_tools_findings(thin_restore(devices), devices);
}

TEST_P(Tools, FindTheSameInTreesThatShareNodes) {
  std::mt19937_64 random(GetParam());
  const Devices devices = random_snapshots(random, GetParam() % 2 == 0 ? 2000 : 40'000);
  TestImage image;
  TestTree tree(image, {84, 252}, random);
  for (const auto& [thin_id, device] : devices) {
    tree.update(device.mappings);
    image.add_device(thin_id, tree.root(), device.details);
  }
  image.finish();
  expect_the_tools_findings(image.write(Place::kDisk), devices);
}

INSTANTIATE_TEST_SUITE_P(Seeds, Tools, testing::Range(0U, 4U));

TEST(ThinTools, WriteASuperblockThatIsRead) {
  const TestFile file = thin_restore({});
  EXPECT_EQ(classify_metadata(file.open()), MetadataContent::kThinMetadata);
  const Metadata metadata(file.open(), Root::kLive);
  const Superblock& superblock = metadata.superblock();
  EXPECT_EQ(superblock.transaction_id, 6U);
  EXPECT_EQ(superblock.time, 5U);
  EXPECT_EQ(superblock.data_block_size, Sectors{1024});
  EXPECT_EQ(superblock.metadata_blocks, 2048U);
  EXPECT_EQ(superblock.data_blocks, TestImage::kDataBlocks);
  EXPECT_EQ(superblock.held_root, 0U);
  EXPECT_FALSE(superblock.needs_check);
}

TEST(ThinTools, FindTheSameUnderAMetadataSnapshot) {
  TestImage image;
  image.add_device(1, image.add_leaf({{0, mapping(1)}}));
  image.add_device(2, image.add_leaf({{0, mapping(1)}, {4, mapping(2)}}));
  image.finish();
  image.hold();
  image.add_device(2, image.add_leaf({{9, mapping(9)}}));
  image.finish();
  const TestFile file = image.write(Place::kDisk);
  Metadata metadata(file.open(), Root::kHeld);
  EXPECT_EQ(delta_of(metadata, 1, 2), thin_delta("-m " + file.path(), 1, 2));
  EXPECT_EQ(delta_of(metadata, 1, 2).size(), 1U);
}

}  // namespace
}  // namespace convoy::thinmeta
