"""Short texts in languages of several scripts, and a dump of them in a Wikipedia's form."""

from __future__ import annotations

from wikipedia_dumps import maker

CHINESE = (
    "北京大学是中国著名的高等学府，位于北京市海淀区。北京大学的校园很大，有一个湖。",
    "上海是中国最大的城市之一，也是重要的港口。上海的火车站很大。",
    "火车从北京开往上海，经过许多城市。火车站里有很多人。",
    "大熊猫生活在中国的山里，喜欢吃竹子。动物园里也有大熊猫。",
    "计算机科学是一门年轻的科学。北京大学有计算机科学系，学生很多。",
    "香港是一个港口城市，人口很多。香港的电影很有名 Hong Kong 1997。",
)
JAPANESE = (
    "東京都は日本の首都である。東京の人口はとても多い。",
    "京都は古い都市で、寺がたくさんある。京都の大学は有名である。",
    "新幹線は東京から京都まで走る。日本の鉄道は速い。",
    "ソニーのデジタルカメラで写真を撮る。カメラは小さい。",
)
THAI = (
    "ประเทศไทยเป็นประเทศในเอเชียตะวันออกเฉียงใต้ เมืองหลวงคือกรุงเทพมหานคร",
    "ช้างเป็นสัตว์ใหญ่ ช้างอาศัยอยู่ในป่าของประเทศไทย",
    "อาหารไทยมีชื่อเสียงมาก คนไทยชอบกินข้าว และอาหารทะเล",
    "กรุงเทพมหานครเป็นเมืองใหญ่ มีคนมาก และมีวัดมาก",
)
GERMAN = (
    "Der Dom zu Köln ist eine Kirche. Die Kirche steht am Rhein, der Rhein fließt durch Köln.",
    "Das Rathaus der Stadt steht am Markt; auf dem Markt steht ein Brunnen.",
    "„Der Rhein“ – ein Lied (1840) – handelt vom Rhein.",
)
KHMER = ("ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា។ ប្រទេសកម្ពុជាមានប្រាសាទអង្គរវត្ត",)
LAO = ("ນະຄອນຫຼວງວຽງຈັນ ເປັນນະຄອນຫຼວງຂອງລາວ",)
BURMESE = ("မြန်မာနိုင်ငံသည် အရှေ့တောင်အာရှတွင် တည်ရှိသည်။",)
TIBETAN = ("བོད་ནི་ས་ཆ་ཞིག་ཡིན། བོད་ཀྱི་ས་ཆ་ནི་མཐོ།",)
TEXTS = {
    "zh": CHINESE, "ja": JAPANESE, "th": THAI, "de": GERMAN, "km": KHMER, "lo": LAO, "my": BURMESE,
    "bo": TIBETAN,
}  # fmt: skip


def header(database: str, media: dict[int, str]) -> str:
    """The beginning of a dump whose namespaces have local names."""
    names = "".join(
        f'      <namespace key="{key}" case="first-letter">{name}</namespace>\n'
        for key, name in media.items()
    )
    start = maker.HEADER.replace("<dbname>enwiki", f"<dbname>{database}")
    return start.replace("    </namespaces>", f"{names}    </namespaces>")


def dump(database: str, articles: dict[str, str], media: dict[int, str] | None = None) -> bytes:
    """The XML of a dump with these articles: titles and wikitext."""
    pages = [maker.page_xml(n, title, text) for n, (title, text) in enumerate(articles.items())]
    return header(database, media or {}).encode() + b"".join(pages) + maker.FOOTER.encode()
